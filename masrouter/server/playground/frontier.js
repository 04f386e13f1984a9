/* What was on offer, as a scatter: expected cost (log axis) against expected score, 95 % intervals.
   Costs that are zero or unknown have no place on a log axis: they stand in a strip at its left. */

import { svg } from "./dom.js";
import { between, dollars, planLine, score, shortDollars } from "./format.js";

const TOP = 14;
const BOTTOM = 40;
const LEFT = 40;
const RIGHT = 16;
const STRIP = 62;

/** Draw offers with a known score: [{index, plan, expected_score, ..., chosen, shown}].
    `pick(index)` selects one. */
export function drawFrontier(place, offers, width, pick) {
  const height = width < 480 ? 240 : 280;
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset?.offer : null;
  const priced = offers.filter((offer) => offer.expected_cost_usd > 0);
  const strip = priced.length < offers.length ? STRIP : 0;
  const x = costScale(priced, LEFT + strip + 14, width - RIGHT - 14);
  const y = scoreScale(offers, TOP + 8, height - BOTTOM - 8);
  const chart = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Expected score against expected cost of the teams on offer" });
  axes(chart, { x, y, width, height, strip, priced });
  const unplaced = offers.filter((offer) => !(offer.expected_cost_usd > 0));
  // The chosen and the shown one come last, so that they are on top.
  for (const offer of [...offers].sort((a, b) => rank(a) - rank(b))) {
    const at = offer.expected_cost_usd > 0 ? x.at(offer.expected_cost_usd) : stripPlace(unplaced.indexOf(offer), unplaced.length);
    chart.append(point(offer, at, y, x, pick));
  }
  place.replaceChildren(chart);
  if (focused !== null && focused !== undefined) chart.querySelector(`[data-offer="${Number(focused)}"]`)?.focus();
}

const rank = (offer) => (offer.shown ? 2 : offer.chosen ? 1 : 0);
const stripPlace = (position, count) => LEFT + (STRIP * (position + 1)) / (count + 1);

function costScale(priced, from, to) {
  const ends = priced.flatMap((offer) => [offer.expected_cost_usd, ...(offer.cost_interval ?? [])]).filter((v) => v > 0);
  let low = Math.log10(Math.min(...ends));
  let high = Math.log10(Math.max(...ends));
  if (!ends.length) [low, high] = [-4, -3];
  if (high - low < 0.5) [low, high] = [(low + high) / 2 - 0.25, (low + high) / 2 + 0.25];
  const at = (cost) => from + ((Math.log10(cost) - low) / (high - low)) * (to - from);
  return { low, high, at };
}

function scoreScale(offers, from, to) {
  const ends = offers.flatMap((offer) => [offer.expected_score, ...(offer.score_interval ?? [])]);
  let low = Math.min(...ends);
  let high = Math.max(...ends);
  if (high - low < 0.1) [low, high] = [(low + high) / 2 - 0.05, (low + high) / 2 + 0.05];
  const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5].find((size) => (high - low) / size <= 5) ?? 1;
  low = Math.floor(low / step + 1e-9) * step;
  high = Math.ceil(high / step - 1e-9) * step;
  const at = (value) => to - ((value - low) / (high - low)) * (to - from);
  return { low, high, step, at };
}

function axes(chart, { x, y, width, height, strip, priced }) {
  const floor = height - BOTTOM;
  const { step } = y;
  for (let k = Math.round(y.low / step); k * step <= y.high + 1e-9; k += 1) {
    const at = y.at(k * step);
    chart.append(
      svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }),
      svg("text", { class: "tick", x: LEFT - 7, y: at + 4, "text-anchor": "end" }, (k * step).toFixed(2)),
    );
  }
  chart.append(svg("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: floor, y2: floor }));
  chart.append(svg("text", { class: "tick", x: LEFT, y: 10 }, "expected score"));
  if (strip) {
    const free = "free or unknown";
    chart.append(
      svg("line", { class: "grid", x1: LEFT + strip, x2: LEFT + strip, y1: TOP, y2: floor }),
      svg("text", { class: "tick", x: LEFT + strip / 2, y: floor + 16, "text-anchor": "middle" }, free.split(" or ")[0]),
      svg("text", { class: "tick", x: LEFT + strip / 2, y: floor + 29, "text-anchor": "middle" }, "or unknown"),
    );
  }
  if (!priced.length) return;
  let last = strip ? LEFT + strip - 20 : -Infinity; // where the strip has its own words
  for (const cost of ticks(x.low, x.high)) {
    const at = x.at(cost);
    chart.append(svg("line", { class: "axis", x1: at, x2: at, y1: floor, y2: floor + 4 }));
    if (at - last < 58) continue;
    chart.append(svg("text", { class: "tick", x: at, y: floor + 17, "text-anchor": "middle" }, shortDollars(cost)));
    last = at;
  }
  chart.append(svg("text", { class: "tick", x: width - RIGHT, y: height - 4, "text-anchor": "end" }, "expected cost, log scale"));
}

function ticks(low, high) {
  const marks = high - low > 2.2 ? [1] : [1, 2, 5];
  const found = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power += 1) {
    for (const mark of marks) {
      const value = mark * 10 ** power;
      if (Math.log10(value) >= low - 1e-9 && Math.log10(value) <= high + 1e-9) found.push(value);
    }
  }
  return found;
}

function point(offer, at, y, x, pick) {
  const { index } = offer;
  const height = y.at(offer.expected_score);
  const label = `${planLine(offer.plan)}. Expected score ${score(offer.expected_score)}, ${between(offer.score_interval, score)}; expected cost ${dollars(offer.expected_cost_usd)}${offer.chosen ? ". Chosen" : ""}`;
  const group = svg(
    "g",
    {
      class: ["point", offer.chosen && "chosen", offer.shown && "shown"].filter(Boolean).join(" "),
      tabindex: 0,
      role: "button",
      "aria-pressed": String(Boolean(offer.shown)),
      "aria-label": label,
      "data-offer": index,
      onclick: () => pick(index),
      onkeydown: (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        pick(index);
      },
    },
    svg("title", {}, label),
  );
  if (offer.score_interval) {
    const [low, high] = offer.score_interval.map(y.at);
    group.append(svg("line", { class: "whisker", x1: at, x2: at, y1: low, y2: high }));
  }
  if (offer.cost_interval && offer.cost_interval[0] > 0) {
    const [low, high] = offer.cost_interval.map(x.at);
    group.append(svg("line", { class: "whisker", x1: low, x2: high, y1: height, y2: height }));
  }
  group.append(
    svg("circle", { class: "reach", cx: at, cy: height, r: 14 }),
    svg("circle", { class: "ring", cx: at, cy: height, r: 10 }),
    svg("circle", { class: "mark", cx: at, cy: height, r: 5.5 }),
  );
  return group;
}
