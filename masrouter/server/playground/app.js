/* The page's wiring: what is typed and moved becomes requests, what comes back is shown. */

import { Api, Failure } from "./api.js";
import { DecisionView } from "./decision.js";
import { byId, el } from "./dom.js";
import { count, dollars } from "./format.js";
import { History } from "./history.js";
import { RunView, samePlan } from "./run.js";
import { Settings } from "./settings.js";
import { markSeat } from "./team_drawing.js";

const PAUSE_MS = 150; // between the last move of the slider and the request
const EXAMPLES = [
  "A train leaves at 14:10 and arrives at 17:45 after a stop of 25 minutes. How long did it move?",
  "Write a Python function that merges two sorted lists without sorting again.",
  "Why is the sky blue at noon and red at sunset?",
];

const api = new Api();
const run = new RunView((plan, agent, state) => {
  if (samePlan(plan, view.plan)) markSeat(byId("team"), agent, state);
});
const view = new DecisionView(() => run.markAll());
const settings = new Settings(() => reroute());
const history = new History(({ query, snapshot }) => {
  byId("query").value = query;
  settings.restore(snapshot);
  decide({ remember: false });
});

let config = null;
let latest = 0; // number of the latest request for a decision: older ones are not shown
let routing = null; // its AbortController, while it is under way
let running = null; // the run's
let pause = null;
const spent = { usd: 0, runs: 0, unknown: 0 };

/** The query and its options from the form; null, with the problem shown, where they cannot be sent. */
function asking() {
  const query = byId("query").value;
  const { options, problem } = settings.options();
  if (query.trim() && !problem) {
    return { query, snapshot: settings.snapshot(), options: { ...options, k: config?.alternatives ?? 8 } };
  }
  trouble(problem ?? "Type a query first.");
  if (!problem) byId("query").focus();
  return null;
}

/** No decision that was asked for earlier will be shown any more. Returns the next one's number. */
function supersede() {
  clearTimeout(pause);
  routing?.abort();
  routing = null;
  view.stale(false);
  latest += 1;
  return latest;
}

/** Ask for a decision and show it. */
async function decide({ remember = true } = {}) {
  const mine = supersede();
  if (!config && !(await learn())) return;
  const asked = asking();
  if (!asked || mine !== latest) return;
  const { query, options, snapshot } = asked;
  routing = new AbortController();
  view.stale(true);
  try {
    const decision = await api.decide({ query, options, dataset: "playground" }, routing.signal);
    if (mine !== latest) return;
    trouble(null);
    view.show(decision);
    history.decided(query, snapshot, decision, { remember });
    say(view.told());
    if (remember) reveal("decision");
  } catch (error) {
    if (mine === latest && error.name !== "AbortError") failed(error);
  } finally {
    if (mine === latest) {
      routing = null;
      view.stale(false);
    }
  }
}

/** Route again a moment after the settings changed, once something was routed. */
function reroute() {
  clearTimeout(pause);
  if (!view.decision || !byId("query").value.trim()) return;
  pause = setTimeout(() => decide({ remember: false }), PAUSE_MS);
}

/** Have the server route and run the team, following it as it works. */
async function runTeam() {
  if (running) return;
  const mine = supersede();
  const asked = asking();
  if (!asked) return;
  const { query, options, snapshot } = asked;
  running = new AbortController();
  buttons();
  trouble(null);
  run.begin();
  reveal("running");
  say("The team is working.");
  let entry = null;
  const take = (chunk) => {
    const event = chunk.masrouter;
    if (event?.event === "decision") {
      if (mine === latest && event.alternatives) view.show(event);
      entry = history.decided(query, snapshot, event, { remember: true });
      history.ran(entry, "running", null);
    }
    run.take(chunk);
  };
  const body = {
    model: "masrouter/auto",
    messages: [{ role: "user", content: query }],
    stream: true,
    masrouter: { ...options, include: true, events: true, dataset: "playground" },
  };
  let how = "finished";
  let why = "";
  try {
    await api.complete(body, take, running.signal);
  } catch (error) {
    how = error.name === "AbortError" ? "stopped" : "failed";
    if (how === "failed") why = inWords(error);
    if (error.status === 401) failed(error);
  }
  running = null;
  buttons();
  run.end(how, why);
  if (run.decisionId) spend(run.costUsd);
  if (entry) history.ran(entry, how, run.costUsd, run.decisionId);
  say({ finished: "The answer is there.", stopped: "The run was stopped.", failed: `The run failed. ${why}` }[how]);
}

function spend(usd) {
  spent.runs += 1;
  if (usd === null) spent.unknown += 1;
  else spent.usd += usd;
  const known = spent.runs > spent.unknown || !spent.runs ? dollars(spent.usd) : "unknown";
  const rest = spent.unknown && spent.runs > spent.unknown ? ` + ${count(spent.unknown, "run")} of unknown cost` : "";
  byId("spend").textContent = `${known}${rest} · ${count(spent.runs, "run")}`;
}

/** Tell the server whether the answer was right. */
async function judge(right) {
  const id = run.decisionId;
  const told = byId("outcome-told");
  if (!run.mayJudge) return;
  told.textContent = "Sending …";
  try {
    await api.outcome({ decision_id: id, score: right ? 1 : 0, score_source: "human" });
    if (id !== run.decisionId) return;
    run.judged(right);
    history.judged(id, right);
  } catch (error) {
    if (id === run.decisionId) told.textContent = "Not recorded.";
    failed(error);
  }
}

function failed(error) {
  if (error.status === 401 || error.status === 403) {
    byId("key-box").open = true;
    byId("key").focus();
  }
  trouble(inWords(error));
}

/** A failure for people; a fault of this page goes to the console, for whoever mends it. */
function inWords(error) {
  if (error instanceof Failure) return error.message;
  console.error(error);
  return "Something went wrong in this page.";
}

/** Show a problem in words; null takes it away. */
function trouble(text) {
  byId("trouble").hidden = !text;
  byId("trouble").textContent = text ?? "";
}

/** Where the page is one column, go to what was asked for. */
function reveal(id) {
  if (matchMedia("(max-width: 56rem)").matches) byId(id).scrollIntoView({ block: "start" });
}

function say(text) {
  byId("status").textContent = text;
}

/** Offer to run or to stop; the focus goes along where one takes the other's place. */
function buttons() {
  const [run, stop] = [byId("run"), byId("stop")];
  const [shown, hidden] = running ? [stop, run] : [run, stop];
  const focused = document.activeElement === hidden;
  run.disabled = !config?.runs;
  shown.hidden = false;
  hidden.hidden = true;
  if (focused) shown.focus();
}

/** Learn what the server has, and whether it answers; without a key where one is needed, ask for it. */
async function learn() {
  try {
    config = await api.config();
  } catch (error) {
    failed(error);
    return false;
  }
  trouble(null);
  settings.offer(config);
  view.describe(config.topologies);
  byId("checkpoint").textContent = config.checkpoint ? `checkpoint ${config.checkpoint}` : "";
  byId("query").maxLength = config.max_query_characters;
  byId("run-hint").textContent = config.runs ? "" : "No provider is configured: teams are routed here, not run.";
  buttons();
  return true;
}

function start() {
  buttons();
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    decide();
  });
  byId("query").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) {
      event.preventDefault();
      decide();
    }
  });
  byId("run").addEventListener("click", runTeam);
  byId("stop").addEventListener("click", () => running?.abort());
  byId("right").addEventListener("click", () => judge(true));
  byId("wrong").addEventListener("click", () => judge(false));
  const useKey = () => {
    const key = byId("key").value.trim();
    if (!api.use(key)) {
      trouble("A key consists of visible ASCII characters only.");
      return;
    }
    byId("key").value = "";
    byId("key-told").textContent = key ? "given" : "none given";
    learn();
  };
  byId("key-use").addEventListener("click", useKey);
  byId("key").addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    useKey();
  });
  byId("examples").append(
    ...EXAMPLES.map((text) =>
      el("li", {}, el("button", { type: "button", class: "link", onclick: () => {
        byId("query").value = text;
        decide();
      } }, text)),
    ),
  );
  learn();
}

start();
