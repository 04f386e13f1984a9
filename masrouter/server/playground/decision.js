/* A decision on the page: the team, its figures, the offers and why. */

import { byId, drawnToWidth, el, svg } from "./dom.js";
import { between, count, dollars, planKey, planLine, score } from "./format.js";
import { drawFrontier } from "./frontier.js";
import { drawTeam } from "./team_drawing.js";

/** Shows one decision at a time, and of it the chosen team or an alternative. */
export class DecisionView {
  #decision = null;
  #offers = [];
  #shown = 0;
  #about = new Map();
  #redrawTeam;
  #redrawFrontier;
  #onDrawn;

  /** `onDrawn` is called after the team was drawn anew. */
  constructor(onDrawn) {
    this.#onDrawn = onDrawn;
    this.#redrawTeam = drawnToWidth(byId("team"), (width) => {
      if (!this.#decision) return;
      drawTeam(byId("team"), byId("team-seats"), this.plan, width);
      this.#onDrawn();
    });
    this.#redrawFrontier = drawnToWidth(byId("frontier"), (width) => {
      if (!this.#decision) return;
      const offers = this.#offers.map((offer, index) => ({ ...offer, index, shown: index === this.#shown }));
      const scored = offers.filter((offer) => typeof offer.expected_score === "number");
      if (!scored.length) byId("frontier").replaceChildren();
      else drawFrontier(byId("frontier"), scored, width, (index) => this.#pick(index));
    });
    byId("back").addEventListener("click", () => {
      this.#pick(this.#offers.findIndex((offer) => offer.chosen));
      byId("decision-title").scrollIntoView({ block: "nearest" });
    });
  }

  /** What topologies are, for the line below the title. */
  describe(topologies) {
    this.#about = new Map(topologies.map((entry) => [entry.name, entry.description]));
  }

  /** The plan that is drawn now. */
  get plan() {
    return this.#offers[this.#shown]?.plan;
  }

  get decision() {
    return this.#decision;
  }

  /** Show a decision: its chosen team, or the alternative that was looked at if it is still on offer. */
  show(decision) {
    const looked = this.#decision && !this.#offers[this.#shown].chosen ? planKey(this.plan) : null;
    this.#decision = decision;
    const chosen = { ...decision, alternatives: undefined, chosen: true };
    this.#offers = [chosen, ...(decision.alternatives ?? [])];
    const rank = (offer) => offer.expected_cost_usd ?? Infinity;
    this.#offers.sort((a, b) => rank(a) - rank(b));
    const again = this.#offers.findIndex((offer) => looked && planKey(offer.plan) === looked);
    this.#shown = again >= 0 ? again : this.#offers.indexOf(chosen);
    for (const id of ["decision", "frontier-box", "why-box"]) byId(id).hidden = false;
    byId("empty").hidden = true;
    this.#why(decision);
    this.#paint();
  }

  /** Say that what is shown is being worked out again. */
  stale(is) {
    byId("decision").classList.toggle("stale", is);
  }

  /** One sentence, for the status line. */
  told() {
    const d = this.#decision;
    return `Chosen: ${planLine(d.plan)}. Expected score ${score(d.expected_score)}, expected cost ${dollars(d.expected_cost_usd)}.`;
  }

  #pick(index) {
    this.#shown = index;
    this.#paint();
  }

  #paint() {
    const offer = this.#offers[this.#shown];
    const { plan } = offer;
    const agents = count(plan.agents.length, "agent");
    byId("decision-title").textContent = `${plan.topology}, ${agents}`;
    const tag = byId("decision-tag");
    tag.textContent = offer.chosen ? chosenAs(this.#decision) : "alternative";
    tag.className = offer.chosen ? "tag strong" : "tag";
    byId("decision-about").textContent = this.#about.get(plan.topology) ?? "";
    byId("back").hidden = offer.chosen;
    this.#redrawTeam();
    this.#redrawFrontier();
    this.#figures(offer);
    this.#list();
  }

  #figures(offer) {
    const costs = this.#offers.flatMap((o) => [o.expected_cost_usd, ...(o.cost_interval ?? [])]).filter((v) => v > 0);
    const [low, high] = [Math.log(Math.min(...costs)), Math.log(Math.max(...costs))];
    const scale = (v) => (v > 0 ? (high > low ? (Math.log(v) - low) / (high - low) : 0.5) : 0);
    byId("figures").replaceChildren(
      ...figure("Expected score", score(offer.expected_score), between(offer.score_interval, score), typeof offer.expected_score === "number" ? bar(offer.expected_score, offer.score_interval, (v) => v) : null, "of 1"),
      ...figure(
        "Expected cost",
        dollars(offer.expected_cost_usd),
        offer.expected_cost_usd === null ? "a price or a token count is unknown" : between(offer.cost_interval, dollars),
        typeof offer.expected_cost_usd === "number" && costs.length ? bar(offer.expected_cost_usd, offer.cost_interval, scale) : null,
        "log scale of all on offer",
      ),
    );
  }

  #list() {
    const rows = this.#offers.map((offer, index) => {
      const shown = index === this.#shown;
      return el(
        "li",
        {},
        el(
          "button",
          { type: "button", "aria-pressed": String(shown), onclick: () => this.#pick(index), class: shown ? "offer shown" : "offer" },
          el("span", { class: "plan" }, planLine(offer.plan), offer.chosen && el("span", { class: "tag strong" }, "chosen")),
          el("span", { class: "number" }, score(offer.expected_score)),
          el("span", { class: "number" }, dollars(offer.expected_cost_usd)),
        ),
      );
    });
    const focused = [...byId("offers").querySelectorAll("button")].indexOf(document.activeElement);
    const head = el("li", { class: "offers-head", "aria-hidden": "true" }, el("span", {}, "Team"), el("span", { class: "number" }, "score"), el("span", { class: "number" }, "cost"));
    byId("offers").replaceChildren(head, ...rows);
    if (focused >= 0) byId("offers").querySelectorAll("button")[focused]?.focus();
  }

  #why(decision) {
    byId("why").replaceChildren(...(decision.reasons ?? []).map((reason) => el("li", {}, reason)));
    const evidence = decision.evidence ?? {};
    const facts = [
      ["Reads as", decision.domain_probability ? `${decision.domain} (${Math.round(decision.domain_probability * 100)} %)` : "unknown"],
      ["Similar logged queries", number(evidence.similar_queries)],
      ["Runs of this team on them", number(evidence.similar_runs_of_plan)],
      ["Runs of it in all", number(evidence.runs_of_plan)],
      ["Nearest logged query", typeof evidence.nearest === "number" ? `cosine ${evidence.nearest.toFixed(2)}` : "unknown"],
      ["Policy", decision.policy ?? "unknown"],
      ["Propensity", typeof decision.propensity === "number" ? Number(decision.propensity.toPrecision(3)).toString() : "unknown"],
      ["Decision", decision.id ?? "unknown"],
    ];
    byId("evidence").replaceChildren(...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  }
}

/** How the chosen team came to be chosen. */
function chosenAs(decision) {
  if (decision.fallback) return "chosen: the safe plan";
  if (decision.explored) return "drawn to explore";
  return decision.sticky ? "kept from the session" : "chosen";
}

const number = (value) => (typeof value === "number" ? String(value) : "unknown");

function figure(name, value, range, drawing, scale) {
  return [
    el(
      "div",
      { class: "figure" },
      el("dt", {}, name),
      el("dd", {}, el("span", { class: "value" }, value), el("span", { class: "quiet" }, range), drawing, drawing && el("span", { class: "unseen" }, scale)),
    ),
  ];
}

/** A small bar: the interval as a band, the expectation as a mark; `scale` maps values to 0..1. */
function bar(value, interval, scale) {
  const at = (v) => Math.max(0, Math.min(1, scale(v))) * 100;
  const [low, high] = (interval ?? [value, value]).map(at);
  return svg(
    "svg",
    { class: "bar", "aria-hidden": "true", width: "100%", height: 14 },
    svg("rect", { class: "track", x: "0", y: 5, width: "100%", height: 4, rx: 2 }),
    svg("rect", { class: "band", x: `${low}%`, y: 3, width: `${Math.max(0.6, high - low)}%`, height: 8, rx: 3 }),
    svg("rect", { class: "mark", x: `${Math.min(at(value), 99.2)}%`, y: 0, width: 3, height: 14, rx: 1.5 }),
  );
}
