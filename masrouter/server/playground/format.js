/* Numbers and plans in words. What is unknown is said to be unknown, never shown as zero. */

/** US dollars with at most three significant digits: $0.00117, $0.01, $12.30, unknown. */
export function dollars(value) {
  if (value === null || value === undefined) return "unknown";
  if (value === 0) return "$0";
  if (value >= 1) return `$${value.toFixed(2)}`;
  if (value < 1e-7) return `$${value.toExponential(1)}`;
  return `$${plain(value, 3)}`;
}

/** The same with two significant digits, for axes and ranges. */
export function shortDollars(value) {
  if (value === 0) return "$0";
  if (value >= 1) return `$${Number(value.toPrecision(2))}`;
  if (value < 1e-7) return `$${value.toExponential(0)}`;
  return `$${plain(value, 2)}`;
}

/** A number below 1 without an exponent and without trailing zeros. */
function plain(value, digits) {
  const places = Math.min(12, digits - 1 - Math.floor(Math.log10(value)));
  return value.toFixed(places).replace(/\.?0+$/, "");
}

/** A score in [0, 1] with three decimals. */
export const score = (value) => (typeof value === "number" ? value.toFixed(3) : "unknown");

/** An interval in words: "0.81 to 0.99". */
export function between(interval, told) {
  if (!interval) return "interval unknown";
  return `${told(interval[0])} to ${told(interval[1])}`;
}

/** Seconds: 0.84 s, 12.3 s. */
export function seconds(value) {
  if (typeof value !== "number") return "unknown time";
  return value < 10 ? `${value.toFixed(2)} s` : `${value.toFixed(1)} s`;
}

/** "1 agent", "3 agents". */
export const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

/** A seat in words: "critic on gpt-4o". */
export const seat = (agent) => (agent.role ? `${agent.role} on ${agent.model}` : agent.model);

/** A plan on one line: "debate: 2 × solver on gpt-4o, critic on o3-mini". */
export function planLine(plan) {
  const times = new Map();
  for (const agent of plan.agents) times.set(seat(agent), (times.get(seat(agent)) ?? 0) + 1);
  const seats = [...times].map(([name, number]) => (number === 1 ? name : `${number} × ${name}`));
  return `${plan.topology}: ${seats.join(", ")}`;
}

/** One string for one plan. */
export const planKey = (plan) =>
  JSON.stringify([plan.topology, plan.agents.map((agent) => [agent.role, agent.model])]);
