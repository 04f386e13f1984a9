/* Where everything of a team's drawing goes: boxes, dots and edges for each topology.
   Pure arithmetic in pixels of the given width; team_drawing.js draws it. */

const BOX = 46; // height of a seat
const GAP = 16; // between seats of a column
const DOT = 7; // radius of query, vote and answer
const PAD = 14;
const NARROW = 480; // below it everything flows down

/** How each topology talks: the shape of its drawing and what its parts are called. */
const SHAPES = {
  io: { shape: "line" },
  cot: { shape: "line", within: "step by step" },
  chain: { shape: "line" },
  iterate: { shape: "line", loop: "until nothing is missing" },
  self_consistency: { shape: "fan" },
  panel: { shape: "panel" },
  full_graph: { shape: "mesh", within: "all read all" },
  debate: { shape: "mesh", within: "positions, then debate" },
  reflection: { shape: "hub", out: "answer", back: "critique" },
  orchestrate: { shape: "hub", out: "subtask", back: "result" },
  delegate: { shape: "hub", out: "sub-task", back: "result", optional: true },
  star: { shape: "hub" },
  escalate: { shape: "ladder" },
};

/** A drawing of the plan at a width: {width, height, boxes, dots, edges, hull, notes}. */
export function layout(plan, width) {
  const known = SHAPES[plan.topology] ?? { shape: "group" };
  const drawing = { width, height: 0, boxes: [], dots: [], edges: [], notes: [], hull: null };
  const wide = { line, fan, panel, mesh, hub, ladder, group };
  const narrow = { line: down, fan: down, panel: down, mesh: down, hub: tree, ladder, group: down };
  (width < NARROW ? narrow : wide)[known.shape](drawing, plan.agents.length, known);
  return drawing;
}

const clamp = (low, value, high) => Math.max(low, Math.min(value, high));
const right = (box) => ({ x: box.x + box.w, y: box.y + BOX / 2 });
const left = (box) => ({ x: box.x, y: box.y + BOX / 2 });
const below = (box) => ({ x: box.x + box.w / 2, y: box.y + BOX });
const above = (box) => ({ x: box.x + box.w / 2, y: box.y });

function place(drawing, agent, x, y, w) {
  const box = { agent, x, y, w, h: BOX };
  drawing.boxes.push(box);
  return box;
}

function dot(drawing, kind, x, y, side = "below") {
  const made = { kind, x, y, r: DOT, side };
  drawing.dots.push(made);
  return made;
}

const before = (d) => ({ x: d.x - d.r - 2, y: d.y });
const after = (d) => ({ x: d.x + d.r, y: d.y });

/** A curve that leaves and arrives along the x axis, or along the y axis where `down`. */
function join(drawing, from, to, { kind = "flow", down = false } = {}) {
  const bend = down ? (to.y - from.y) / 2 : (to.x - from.x) / 2;
  const path = down
    ? `M${from.x} ${from.y}C${from.x} ${from.y + bend} ${to.x} ${to.y - bend} ${to.x} ${to.y}`
    : `M${from.x} ${from.y}C${from.x + bend} ${from.y} ${to.x - bend} ${to.y} ${to.x} ${to.y}`;
  drawing.edges.push({ path, kind });
}

function note(drawing, text, x, y, anchor = "middle") {
  drawing.notes.push({ text, x, y, anchor });
}

const stacked = (count) => count * BOX + (count - 1) * GAP;

function column(drawing, agents, x, top, w) {
  return agents.map((agent, row) => place(drawing, agent, x, top + row * (BOX + GAP), w));
}

const range = (from, to) => Array.from({ length: to - from }, (_, index) => from + index);

/** Seats one after another: across where they fit, else down. */
function line(drawing, count, known) {
  const { within, loop } = known;
  const { width } = drawing;
  const ends = 2 * (PAD + DOT * 2 + 46);
  if (count > 1 && width < ends + count * 132 + (count - 1) * 36) {
    down(drawing, count, known);
    return;
  }
  const top = loop || within ? 42 : 22;
  const w = clamp(96, (width - ends - (count - 1) * 36) / count, 190);
  const gap = count === 1 ? 0 : clamp(36, (width - ends - count * w) / (count - 1), 64);
  const total = count * w + (count - 1) * gap;
  const start = (width - total) / 2;
  const boxes = range(0, count).map((agent) => place(drawing, agent, start + agent * (w + gap), top, w));
  const middle = top + BOX / 2;
  const reach = clamp(46, start - PAD - DOT * 2, 64);
  const query = dot(drawing, "query", start - reach - DOT, middle);
  const answer = dot(drawing, "answer", start + total + reach + DOT, middle);
  join(drawing, after(query), left(boxes[0]));
  boxes.slice(1).forEach((box, index) => join(drawing, right(boxes[index]), left(box)));
  join(drawing, right(boxes[count - 1]), before(answer));
  if (loop) {
    const [a, b] = [above(boxes[count - 1]), above(boxes[0])];
    const [from, to] = count === 1 ? [{ x: a.x + 26, y: a.y }, { x: b.x - 26, y: b.y }] : [a, b];
    const path = `M${from.x} ${from.y}C${from.x} ${top - 30} ${to.x} ${top - 30} ${to.x} ${to.y}`;
    drawing.edges.push({ path, kind: "maybe" });
    note(drawing, loop, width / 2, 12);
  }
  if (within) note(drawing, within, width / 2, top - 10);
  drawing.height = top + BOX + 24;
}

/** The same shapes from top to bottom: query, seats, vote or judge, answer. */
function down(drawing, count, { shape, within, loop }) {
  const middle = drawing.width / 2;
  const apart = shape !== "line"; // seats that do not follow one another stand in a frame
  const judge = shape === "panel";
  const members = range(0, judge ? count - 1 : count);
  const reach = shape === "mesh" ? Math.min(16 + 12 * (count - 1), 58) : 0;
  const w = clamp(96, drawing.width - 2 * PAD - 40 - reach, 240);
  const x = middle - (w + reach) / 2;
  const query = dot(drawing, "query", middle, 10, "right");
  let y = 46;
  let out = { x: middle, y: query.y + DOT };
  const step = (to) => {
    join(drawing, out, to, { down: true });
    out = null;
  };
  if (apart) {
    const label = { fan: "independent answers", panel: "independent answers", mesh: within }[shape];
    const top = y + (label ? 28 : PAD);
    const bottom = top + stacked(members.length) + PAD;
    drawing.hull = { x: x - PAD, y, w: w + reach + 2 * PAD, h: bottom - y };
    if (label) note(drawing, label, x, y + 18, "start");
    const boxes = column(drawing, members, x, top, w);
    if (shape === "mesh") mutual(drawing, boxes, reach);
    step({ x: middle, y });
    out = { x: middle, y: bottom };
    y = bottom + 30;
  } else {
    const boxes = members.map((agent) => place(drawing, agent, x, y + agent * (BOX + 26), w));
    for (const box of boxes) {
      step(above(box));
      out = below(box);
    }
    if (within) note(drawing, within, middle + 22, 32, "start");
    if (loop) {
      const [from, to] = [right(boxes[count - 1]), right(boxes[0])];
      const bend = count === 1 ? 14 : 0;
      const path = `M${from.x} ${from.y + bend}C${from.x + 34} ${from.y + bend} ${to.x + 34} ${to.y - bend} ${to.x} ${to.y - bend}`;
      drawing.edges.push({ path, kind: "maybe" });
    }
    y = out.y + 30;
  }
  if (judge) {
    const box = place(drawing, count - 1, x, y, w);
    step(above(box));
    out = below(box);
    note(drawing, count === 2 ? "answers, then judges" : "judges", middle + 10, y - 10, "start");
    y += BOX + 30;
  } else if (shape === "fan" || shape === "mesh") {
    const vote = dot(drawing, "vote", middle, y + DOT, "right");
    step({ x: middle, y: vote.y - DOT - 2 });
    out = { x: middle, y: vote.y + DOT };
    y = out.y + 26;
  }
  const answer = dot(drawing, "answer", middle, y + DOT, "right");
  step({ x: middle, y: answer.y - DOT - 2 });
  if (loop) note(drawing, loop, middle, answer.y + 28);
  drawing.height = answer.y + (loop ? 36 : 16);
}

/** A lead and its workers from top to bottom. */
function tree(drawing, count, { out, back, optional }) {
  const kind = optional ? "maybe" : "flow";
  const w = clamp(96, drawing.width - 2 * PAD - 70, 230);
  const start = Math.max(PAD, (drawing.width - w - 60) / 2);
  const lead = place(drawing, 0, start, 46, w);
  const query = dot(drawing, "query", start + w / 2, 10, "right");
  const answer = dot(drawing, "answer", start + w + 44, 46 + BOX / 2);
  join(drawing, { x: query.x, y: query.y + DOT }, above(lead), { down: true });
  join(drawing, right(lead), before(answer));
  const said = [out, back].filter(Boolean).join(", ");
  const first = lead.y + BOX + (said ? 34 : 22);
  if (count === 1) {
    const [a, b] = [below(lead).x - 18, below(lead).x + 18];
    const y = lead.y + BOX;
    drawing.edges.push({ path: `M${a} ${y}C${a} ${y + 34} ${b} ${y + 34} ${b} ${y}`, kind });
    if (back) note(drawing, `${back} of its own`, below(lead).x, y + 44);
    drawing.height = y + 54;
    return;
  }
  for (const box of column(drawing, range(1, count), start + 34, first, w)) {
    const to = left(box);
    const path = `M${start + 14} ${lead.y + BOX}V${to.y - 8}Q${start + 14} ${to.y} ${start + 22} ${to.y}H${to.x}`;
    drawing.edges.push({ path, kind: `${kind} both` });
  }
  if (said) note(drawing, said, start + 34, lead.y + BOX + 21, "start");
  drawing.height = first + stacked(count - 1) + 8;
}

/** Curves at the right of a column: every seat with every other. */
function mutual(drawing, boxes, reach) {
  for (const [index, from] of boxes.entries()) {
    for (const to of boxes.slice(index + 1)) {
      const apart = (to.agent - from.agent) / Math.max(1, boxes.length - 1);
      const bulge = right(from).x + apart * reach * 1.2 + 8;
      const [p, r] = [{ ...right(from), y: right(from).y + 5 }, { ...right(to), y: right(to).y - 5 }];
      drawing.edges.push({ path: `M${p.x} ${p.y}C${bulge} ${p.y} ${bulge} ${r.y} ${r.x} ${r.y}`, kind: "mutual" });
    }
  }
}

/** x positions of `parts` (widths) with even gaps, centred; gaps between `least` and `most`. */
function across(width, parts, least, most) {
  const taken = parts.reduce((sum, part) => sum + part, 0);
  const gap = clamp(least, (width - 2 * PAD - taken) / (parts.length - 1), most);
  let x = (width - taken - gap * (parts.length - 1)) / 2;
  return parts.map((part) => {
    const at = x;
    x += part + gap;
    return at;
  });
}

/** Independent answers and a vote. */
function fan(drawing, count) {
  const w = clamp(96, drawing.width - 2 * PAD - 6 * DOT - 3 * 34, 220);
  const [q, b, v, a] = across(drawing.width, [DOT * 2, w, DOT * 2, DOT * 2], 30, 84);
  const top = 8;
  const boxes = column(drawing, range(0, count), b, top, w);
  const middle = Math.max(top + stacked(count) / 2, 22);
  const query = dot(drawing, "query", q + DOT, middle);
  const vote = dot(drawing, "vote", v + DOT, middle);
  const answer = dot(drawing, "answer", a + DOT, middle);
  for (const box of boxes) {
    join(drawing, after(query), left(box));
    join(drawing, right(box), before(vote));
  }
  join(drawing, after(vote), before(answer));
  drawing.height = Math.max(top + stacked(count), middle + 26) + 8;
}

/** Independent answers and a judge; of two seats the judge answers as well. */
function panel(drawing, count) {
  const w = clamp(88, (drawing.width - 2 * PAD - 4 * DOT - 3 * 28) / 2, 200);
  const [q, b, j, a] = across(drawing.width, [DOT * 2, w, w, DOT * 2], 24, 72);
  const top = 30;
  const rows = Math.max(1, count - 1);
  const boxes = column(drawing, range(0, count - 1), b, top, w);
  const middle = top + stacked(rows) / 2;
  const judge = place(drawing, count - 1, j, middle - BOX / 2, w);
  const query = dot(drawing, "query", q + DOT, middle);
  const answer = dot(drawing, "answer", a + DOT, middle);
  for (const box of boxes) {
    join(drawing, after(query), left(box));
    join(drawing, right(box), left(judge));
  }
  join(drawing, right(judge), before(answer));
  note(drawing, count === 2 ? "answers, then judges" : "judges", judge.x + w / 2, judge.y - 10);
  drawing.height = Math.max(top + stacked(rows), middle + 28) + 8;
}

/** Seats that all read each other, and a vote. */
function mesh(drawing, count, { within }) {
  const reach = Math.min(18 + 13 * (count - 1), 110);
  const w = clamp(96, drawing.width - 2 * PAD - 6 * DOT - 3 * 26 - reach - 2 * PAD, 220);
  const inner = w + reach + 2 * PAD;
  const [q, h, v, a] = across(drawing.width, [DOT * 2, inner, DOT * 2, DOT * 2], 24, 76);
  const top = 34;
  const boxes = column(drawing, range(0, count), h + PAD, top, w);
  const bottom = top + stacked(count) + PAD;
  const middle = (top - 24 + bottom) / 2;
  drawing.hull = { x: h, y: 4, w: inner, h: bottom - 4 };
  note(drawing, within, h + PAD, 22, "start");
  mutual(drawing, boxes, reach);
  const query = dot(drawing, "query", q + DOT, middle);
  const vote = dot(drawing, "vote", v + DOT, middle);
  const answer = dot(drawing, "answer", a + DOT, middle);
  join(drawing, after(query), { x: h, y: middle });
  join(drawing, { x: h + inner, y: middle }, before(vote));
  join(drawing, after(vote), before(answer));
  drawing.height = bottom + 8;
}

/** A lead that sends work out and takes it back. */
function hub(drawing, count, { out, back, optional }) {
  const kind = optional ? "maybe" : "flow";
  const workers = count - 1;
  const rows = stacked(Math.max(1, workers));
  const w = clamp(96, (drawing.width - 2 * PAD - 64) / 2, 200);
  const gap = clamp(56, drawing.width - 2 * PAD - 2 * w, 130);
  const total = workers ? 2 * w + gap : w;
  const x = (drawing.width - total) / 2;
  const top = Math.max(36, 8 + (36 + BOX + 44 - rows) / 2);
  const middle = Math.max(36 + BOX / 2, top + rows / 2);
  const lead = place(drawing, 0, x, middle - BOX / 2, w);
  const query = dot(drawing, "query", x + w / 2, lead.y - 24, "right");
  const answer = dot(drawing, "answer", x + w / 2, lead.y + BOX + 32, "right");
  join(drawing, { x: query.x, y: query.y + DOT }, above(lead), { down: true });
  join(drawing, below(lead), { x: answer.x, y: answer.y - DOT - 2 }, { down: true });
  for (const box of column(drawing, range(1, count), x + w + gap, middle - rows / 2, w)) {
    const [p, r] = [right(lead), left(box)];
    join(drawing, { x: p.x, y: p.y - 6 }, { x: r.x, y: r.y - 6 }, { kind });
    join(drawing, { x: r.x, y: r.y + 6 }, { x: p.x, y: p.y + 6 }, { kind });
  }
  if (!workers) {
    const p = right(lead);
    drawing.edges.push({
      path: `M${p.x} ${p.y - 10}C${p.x + 46} ${p.y - 22} ${p.x + 46} ${p.y + 22} ${p.x} ${p.y + 10}`,
      kind,
    });
    if (back) note(drawing, `${back} of its own`, p.x + 42, p.y + 4, "start");
  } else if (workers === 1) {
    if (out) note(drawing, out, x + w + gap / 2, middle - 14);
    if (back) note(drawing, back, x + w + gap / 2, middle + 24);
  }
  drawing.height = Math.max(middle + rows / 2, answer.y + DOT) + 10;
}

/** Stages, each asked only where the one before it was not sure. */
function ladder(drawing, count) {
  const slim = drawing.width < NARROW;
  const indent = slim ? 10 : 44;
  const reach = slim ? 50 : 90;
  const w = clamp(96, drawing.width - 2 * PAD - 4 * DOT - reach - 34 - indent * (count - 1), 210);
  const whole = DOT * 2 + 34 + w + indent * (count - 1) + reach + DOT * 2;
  const start = Math.max(PAD, (drawing.width - whole) / 2);
  const step = BOX + 34;
  const boxes = range(0, count).map((agent) =>
    place(drawing, agent, start + DOT * 2 + 34 + agent * indent, 8 + agent * step, w),
  );
  const query = dot(drawing, "query", start + DOT, 8 + BOX / 2);
  const answer = dot(drawing, "answer", start + whole - DOT, boxes[count - 1].y + BOX / 2);
  join(drawing, after(query), left(boxes[0]));
  for (const [index, box] of boxes.entries()) {
    if (index === count - 1) join(drawing, right(box), before(answer));
    else {
      const p = right(box);
      const end = { x: answer.x, y: answer.y - DOT - 2 };
      const path = `M${p.x} ${p.y}C${answer.x} ${p.y} ${end.x} ${p.y + 12} ${end.x} ${end.y}`;
      drawing.edges.push({ path, kind: "maybe" });
      const from = { x: box.x + w / 2, y: box.y + BOX };
      join(drawing, from, { x: from.x, y: boxes[index + 1].y }, { kind: "maybe", down: true });
      note(drawing, slim ? "if unsure" : "if its samples disagree", from.x + 10, from.y + 21, "start");
    }
  }
  drawing.height = 8 + (count - 1) * step + BOX + 22;
}

/** A topology that this page has no drawing for: who sits in it, and nothing about how they talk. */
function group(drawing, count) {
  const w = clamp(96, drawing.width - 2 * PAD - 4 * DOT - 2 * 34 - 2 * PAD, 220);
  const inner = w + 2 * PAD;
  const [q, h, a] = across(drawing.width, [DOT * 2, inner, DOT * 2], 26, 84);
  const top = 16;
  column(drawing, range(0, count), h + PAD, top, w);
  const bottom = top + stacked(count) + PAD;
  const middle = (2 + bottom) / 2;
  drawing.hull = { x: h, y: 2, w: inner, h: bottom - 2 };
  const query = dot(drawing, "query", q + DOT, middle);
  const answer = dot(drawing, "answer", a + DOT, middle);
  join(drawing, after(query), { x: h, y: middle });
  join(drawing, { x: h + inner, y: middle }, before(answer));
  drawing.height = bottom + 10;
}
