/* The team as an SVG graph, drawn at the width it has. */

import { el, fit, svg } from "./dom.js";
import { planLine, seat } from "./format.js";
import { layout } from "./team.js";

const HUES = 8;

/** Draw the plan into `place`; where a name had to be cut, `seats` lists the seats in full. */
export function drawTeam(place, seats, plan, width) {
  const drawing = layout(plan, width);
  const hues = new Map([...new Set(plan.agents.map((agent) => agent.model))].map((m, i) => [m, i % HUES]));
  const graph = svg(
    "svg",
    {
      width,
      height: Math.ceil(drawing.height),
      viewBox: `0 0 ${width} ${Math.ceil(drawing.height)}`,
      role: "img",
      "aria-label": `The team, ${planLine(plan)}`,
    },
    svg("defs", {}, tip("tip", "flow-tip"), tip("tip-mutual", "mutual-tip")),
  );
  const { hull } = drawing;
  if (hull) graph.append(svg("rect", { class: "hull", x: hull.x, y: hull.y, width: hull.w, height: hull.h, rx: 12 }));
  for (const edge of drawing.edges) {
    const mutual = edge.kind === "mutual";
    const start = mutual ? "url(#tip-mutual)" : edge.kind.endsWith("both") ? "url(#tip)" : null;
    graph.append(
      svg("path", {
        class: `edge ${edge.kind}`,
        d: edge.path,
        "marker-end": mutual ? "url(#tip-mutual)" : "url(#tip)",
        "marker-start": start,
      }),
    );
  }
  for (const dot of drawing.dots) graph.append(...dotParts(dot, width));
  for (const note of drawing.notes) {
    graph.append(svg("text", { class: "note", x: note.x, y: note.y, "text-anchor": note.anchor }, note.text));
  }
  place.replaceChildren(graph);
  let cut = false;
  for (const box of drawing.boxes) {
    const agent = plan.agents[box.agent];
    const [bold, plain] = agent.role ? [agent.role, agent.model] : [agent.model, ""];
    const name = svg("text", { class: "name", x: box.x + 16, y: box.y + (plain ? 20 : 28) }, bold);
    const model = svg("text", { class: "model", x: box.x + 16, y: box.y + 36 }, plain);
    const hue = hues.get(agent.model);
    graph.append(
      svg(
        "g",
        { class: "seat", "data-agent": box.agent },
        svg("title", {}, `Agent ${box.agent + 1}: ${seat(agent)}`),
        svg("rect", { class: "box", x: box.x, y: box.y, width: box.w, height: box.h, rx: 7 }),
        svg("rect", { class: `hue hue-${hue}`, x: box.x + 6, y: box.y + 9, width: 4, height: box.h - 18, rx: 2 }),
        svg("text", { class: "number", x: box.x + box.w - 9, y: box.y + 16, "text-anchor": "end" }, String(box.agent + 1)),
        name,
        model,
      ),
    );
    cut = fit(name, box.w - 42) || cut;
    cut = fit(model, box.w - 26) || cut;
  }
  seats.classList.toggle("unseen", !cut);
  seats.replaceChildren(el("ol", {}, plan.agents.map((agent) => el("li", {}, seat(agent)))));
}

/** Say on the drawing what a seat is doing: "busy", "done", "failed" or "". */
export function markSeat(place, agent, state) {
  const seat = place.querySelector(`[data-agent="${Number(agent)}"]`);
  if (!seat) return;
  seat.classList.remove("busy", "done", "failed");
  if (state) seat.classList.add(state);
}

function tip(id, name) {
  return svg(
    "marker",
    { id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" },
    svg("path", { class: name, d: "M0.5 0.8 7.5 4 0.5 7.2Z" }),
  );
}

function dotParts(dot, width) {
  const circle = svg("circle", { class: `dot ${dot.kind}`, cx: dot.x, cy: dot.y, r: dot.r });
  if (dot.side === "right") {
    return [circle, svg("text", { class: "end", x: dot.x + 15, y: dot.y + 4 }, dot.kind)];
  }
  const anchor = dot.x < 30 ? "start" : dot.x > width - 30 ? "end" : "middle";
  const x = { start: dot.x - dot.r, end: dot.x + dot.r, middle: dot.x }[anchor];
  return [circle, svg("text", { class: "end", x, y: dot.y + 23, "text-anchor": anchor }, dot.kind)];
}
