/* This session's queries, newest first; they live in this page's memory only. */

import { byId, el } from "./dom.js";
import { dollars, planLine, score } from "./format.js";

const MOST = 50;

/** The list of queries; `onPick({query, snapshot})` is called when one is taken up again. */
export class History {
  #entries = [];
  #onPick;

  constructor(onPick) {
    this.#onPick = onPick;
  }

  /** A query was routed: a new entry, or new figures for the latest one where it is the same query
      and was not run. Returns the entry. */
  decided(query, snapshot, decision, { remember }) {
    const latest = this.#entries[0];
    if (latest && latest.query === query && (!remember || !latest.ran)) {
      if (!latest.ran) Object.assign(latest, { snapshot, decision });
    } else {
      this.#entries.unshift({ query, snapshot, decision, ran: null, costUsd: null, id: null, right: null });
      this.#entries.length = Math.min(this.#entries.length, MOST);
    }
    this.#paint();
    return this.#entries[0];
  }

  /** An entry is being run ("running"), or was: "finished", "stopped", "failed". */
  ran(entry, how, costUsd, id = null) {
    Object.assign(entry, { id, ran: how, costUsd });
    this.#paint();
  }

  /** An outcome was recorded. */
  judged(id, right) {
    const entry = this.#entries.find((one) => one.id === id);
    if (entry) entry.right = right;
    this.#paint();
  }

  /** Taken up again, an entry is the latest one. */
  #pick(entry) {
    this.#entries = [entry, ...this.#entries.filter((other) => other !== entry)];
    this.#paint();
    byId("past").querySelector("button").focus();
    this.#onPick(entry);
  }

  #paint() {
    const focused = [...byId("past").querySelectorAll("button")].indexOf(document.activeElement);
    byId("past-box").hidden = !this.#entries.length;
    byId("past").replaceChildren(
      ...this.#entries.map((entry) =>
        el(
          "li",
          {},
          el(
            "button",
            { type: "button", onclick: () => this.#pick(entry) },
            el("span", { class: "past-query" }, entry.query),
            el("span", { class: "quiet past-plan" }, planLine(entry.decision.plan)),
            el("span", { class: "quiet" }, facts(entry)),
          ),
        ),
      ),
    );
    if (focused >= 0) byId("past").querySelectorAll("button")[focused]?.focus();
  }
}

function facts(entry) {
  const { decision, ran, costUsd, right } = entry;
  const parts = [`expected ${score(decision.expected_score)} at ${dollars(decision.expected_cost_usd)}`];
  if (ran) parts.push(ran === "finished" ? `cost ${dollars(costUsd)}` : ran);
  if (right !== null) parts.push(right ? "right" : "wrong");
  return parts.join(" · ");
}
