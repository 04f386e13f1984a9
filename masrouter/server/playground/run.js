/* A run as it happens: a card for every call, notes between them, the answer, its outcome. */

import { byId, el } from "./dom.js";
import { count, dollars, planKey, planLine, seat, seconds } from "./format.js";

/** Follows one run at a time. */
export class RunView {
  #cards = new Map();
  #answer = null;
  #mark;
  #plan = null;
  #states = new Map();
  decisionId = null;
  costUsd = null; // of the whole run; null is unknown
  mayJudge = false;

  /** `mark(plan, agent, state)` is told what each seat is doing. */
  constructor(mark) {
    this.#mark = mark;
  }

  /** A new run begins. */
  begin() {
    this.#cards.clear();
    this.#states.clear();
    this.#plan = null;
    this.decisionId = null;
    this.costUsd = null;
    this.mayJudge = false;
    byId("running").hidden = false;
    byId("calls").replaceChildren();
    byId("answer").replaceChildren();
    this.#answer = null;
    byId("answer-box").hidden = true;
    byId("outcome").hidden = true;
    byId("outcome-told").textContent = "";
    for (const id of ["right", "wrong"]) {
      byId(id).removeAttribute("aria-pressed");
      byId(id).removeAttribute("aria-disabled");
    }
    byId("running-about").textContent = "Routing, then asking the team.";
    this.#tag("running", "busy");
  }

  /** A chunk of the stream: a piece of the answer, an event of the team, or both. */
  take(chunk) {
    const event = chunk.masrouter;
    if (event?.event) this.#event(event);
    const piece = chunk.choices?.[0]?.delta?.content;
    if (typeof piece === "string" && piece) this.#write(piece);
  }

  /** The run is over: "finished", "stopped" or "failed", and then why. */
  end(how, why = "") {
    if (why) byId("running-about").textContent = why;
    this.#tag(how, how === "failed" ? "bad" : how === "finished" ? "strong" : "");
    for (const [agent, state] of this.#states) if (state === "busy") this.#seat(agent, "");
    const answer = how === "finished" ? this.#answer?.data : null;
    for (const card of this.#cards.values()) {
      if (card.open) card.state.textContent = how === "finished" ? "" : "not finished";
      else if (card.text.data === answer) card.text.data = "This reply is the answer.";
    }
    if (this.#answer) byId("answer").replaceChildren(...blocks(this.#answer.data));
    this.mayJudge = how === "finished" && Boolean(this.decisionId);
    byId("outcome").hidden = !this.mayJudge;
  }

  /** The outcome was recorded; there is but one. */
  judged(right) {
    this.mayJudge = false;
    byId("outcome-told").textContent = right ? "Recorded as right." : "Recorded as wrong.";
    for (const [id, mine] of [["right", right], ["wrong", !right]]) {
      byId(id).setAttribute("aria-pressed", String(mine));
      byId(id).setAttribute("aria-disabled", "true");
    }
  }

  /** Draw again what each seat was doing, after the team was drawn anew. */
  markAll() {
    for (const [agent, state] of this.#states) this.#mark(this.#plan, agent, state);
  }

  #event(event) {
    if (event.event === "decision") this.#decided(event);
    else if (event.event === "call_started") this.#started(event);
    else if (event.event === "text") this.#text(event);
    else if (event.event === "call_ended") this.#ended(event);
    else if (event.event === "note") this.#note(event.text);
    else if (event.event === "run_ended") this.#totals(event);
  }

  #decided(decision) {
    this.decisionId = decision.id ?? null;
    this.#plan = decision.plan ?? null;
    if (this.#plan) byId("running-about").textContent = planLine(this.#plan);
  }

  #started({ agent, step, model }) {
    const card = this.#card(agent, step, model);
    card.state.textContent = "writing …";
    this.#seat(agent, "busy");
  }

  #text({ agent, step, text }) {
    this.#card(agent, step, null).text.appendData(text);
  }

  #ended(call) {
    const card = this.#card(call.agent, call.step, call.model);
    card.open = false;
    if (typeof call.reply === "string" && call.reply !== card.text.data) card.text.data = call.reply;
    const facts = [seconds(call.latency_s), tokens(call), dollars(call.cost_usd)];
    if (call.attempts > 1) facts.push(count(call.attempts, "attempt"));
    card.state.textContent = facts.join(" · ");
    if (call.error) {
      card.box.classList.add("bad");
      card.box.append(el("p", { class: "wrong" }, `failed: ${call.error.replaceAll("_", " ")}`));
    }
    this.#seat(call.agent, call.error ? "failed" : "done");
  }

  #note(text) {
    if (typeof text === "string") byId("calls").append(el("p", { class: "note" }, text));
  }

  #totals(run) {
    this.costUsd = run.cost_usd ?? null;
    const team = this.#plan ? planLine(this.#plan) : null;
    const facts = [team, `cost ${dollars(this.costUsd)}`, `${tokens(run)} written`, seconds(run.latency_s)];
    byId("running-about").textContent = facts.filter(Boolean).join(" · ");
  }

  #card(agent, step, model) {
    const key = JSON.stringify([agent, step]);
    let card = this.#cards.get(key);
    if (card) return card;
    const member = this.#plan?.agents?.[agent] ?? { role: null, model: model ?? "unknown model" };
    const text = document.createTextNode("");
    const state = el("span", { class: "quiet" });
    const title = el("h3", {}, el("span", { class: "seat-number" }, String(agent + 1)), ` ${seat(member)}`);
    const body = el("div", { class: "message", tabindex: 0, role: "group", "aria-label": `Message of agent ${agent + 1}, ${step}` }, text);
    const box = el("article", { class: "call" }, title, el("p", { class: "facts" }, el("span", { class: "step" }, step), state), body);
    byId("calls").append(box);
    card = { box, text, state, open: true };
    this.#cards.set(key, card);
    return card;
  }

  #write(piece) {
    if (!this.#answer) {
      this.#answer = document.createTextNode("");
      byId("answer").append(this.#answer);
      byId("answer-box").hidden = false;
    }
    this.#answer.appendData(piece);
  }

  #seat(agent, state) {
    this.#states.set(agent, state);
    this.#mark(this.#plan, agent, state);
  }

  #tag(words, look) {
    const tag = byId("running-tag");
    tag.textContent = words;
    tag.className = `tag ${look}`;
  }
}

const tokens = (usage) => count(usage.completion_tokens ?? "unknown", "token");

/** True where two plans are the same team. */
export const samePlan = (a, b) => Boolean(a && b) && planKey(a) === planKey(b);

/** An answer's text as paragraphs, and what stands in ``` fences as programs. */
function blocks(text) {
  return text.split(/^(```[^\n]*\n[\s\S]*?^```[ \t]*$)/m).map((part) => {
    const fenced = /^```[^\n]*\n([\s\S]*?)^```[ \t]*$/m.exec(part);
    return fenced && part.startsWith("```") ? el("pre", { tabindex: 0 }, fenced[1]) : document.createTextNode(part);
  });
}
