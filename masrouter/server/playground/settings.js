/* The slider and the limits: what the form says, as routing options. */

import { byId, el } from "./dom.js";
import { dollars } from "./format.js";

const END = 200; // the slider's last position: cost does not matter

/** The form's settings. `onChange` is called after every change that a request would show. */
export class Settings {
  #config = null;
  #onChange;

  constructor(onChange) {
    this.#onChange = onChange;
    byId("worth").addEventListener("input", () => this.#changed());
    byId("worth-default").addEventListener("click", () => this.#slideTo(this.#config?.default_cost_weight));
    for (const id of ["max-cost", "max-agents"]) byId(id).addEventListener("input", () => this.#changed());
    for (const id of ["models", "topologies"]) byId(id).addEventListener("change", () => this.#changed());
    byId("limits-clear").addEventListener("click", () => this.restore({ ...this.snapshot(), ...NO_LIMITS }));
  }

  /** Offer what the server's router knows. */
  offer(config) {
    this.#config = config;
    byId("worth").max = END;
    byId("worth").value = this.#positionOf(config.default_cost_weight);
    const counts = Array.from({ length: config.max_agents }, (_, index) => String(index + 1));
    byId("max-agents").replaceChildren(
      el("option", { value: "" }, "no limit"),
      ...counts.map((agents) => el("option", { value: agents }, agents)),
    );
    for (const list of ["models", "topologies"]) {
      byId(list).replaceChildren(
        ...config[list].map((entry) =>
          el(
            "label",
            { title: entry.description || null },
            el("input", { type: "checkbox", checked: true, value: entry.name }),
            el("span", {}, entry.name),
          ),
        ),
      );
    }
    this.#tell();
  }

  /** Routing options for a request, or a problem in words. */
  options() {
    const options = { cost_weight: this.#costWeight() };
    const most = byId("max-cost").value.trim();
    if (most) {
      const number = /^(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(most) ? Number(most) : NaN;
      if (!(number > 0 && number <= 1e6)) {
        return { problem: "The most it may cost is a number of US dollars above 0, such as 0.002." };
      }
      options.max_cost_usd = number;
    }
    if (byId("max-agents").value) options.max_agents = Number(byId("max-agents").value);
    for (const [list, noun] of [["models", "model"], ["topologies", "topology"]]) {
      const [allowed, refused] = this.#checks(list);
      if (!allowed.length && refused.length) return { problem: `Allow at least one ${noun}.` };
      if (!refused.length) continue;
      if (list === "models" && refused.length <= allowed.length) options.exclude_models = refused;
      else options[list] = allowed;
    }
    return { options };
  }

  /** What the form holds, to come back to. */
  snapshot() {
    return {
      worth: byId("worth").value,
      cost: byId("max-cost").value,
      agents: byId("max-agents").value,
      models: this.#checks("models")[1],
      topologies: this.#checks("topologies")[1],
    };
  }

  /** Put a snapshot back. */
  restore(snapshot) {
    byId("worth").value = snapshot.worth;
    byId("max-cost").value = snapshot.cost;
    byId("max-agents").value = snapshot.agents;
    for (const list of ["models", "topologies"]) {
      for (const box of byId(list).querySelectorAll("input")) {
        box.checked = !snapshot[list].includes(box.value);
      }
    }
    this.#changed();
  }

  #checks(list) {
    const boxes = [...byId(list).querySelectorAll("input")];
    const names = (checked) => boxes.filter((box) => box.checked === checked).map((box) => box.value);
    return [names(true), names(false)];
  }

  #slideTo(weight) {
    if (weight === undefined) return;
    byId("worth").value = this.#positionOf(weight);
    this.#changed();
  }

  /** Positions are even steps of the logarithm of what a right answer is worth. */
  #positionOf(weight) {
    if (weight <= 0) return END;
    const { least, most } = this.#config.cost_weights;
    const share = Math.log(most / weight) / Math.log(most / least);
    return Math.round(Math.min(1, Math.max(0, share)) * (END - 1));
  }

  #costWeight() {
    const position = Number(byId("worth").value);
    const usual = this.#config.default_cost_weight;
    if (position === this.#positionOf(usual)) return usual;
    if (position >= END) return 0;
    const { least, most } = this.#config.cost_weights;
    return Number((most * (least / most) ** (position / (END - 1))).toPrecision(4));
  }

  #changed() {
    this.#tell();
    this.#onChange();
  }

  #tell() {
    if (!this.#config) return;
    const weight = this.#costWeight();
    const worth = weight === 0 ? "any price" : dollars(1 / weight);
    byId("worth-value").textContent = worth;
    const spoken = weight === 0 ? "cost does not matter" : `a right answer is worth ${worth}`;
    byId("worth").setAttribute("aria-valuetext", spoken);
    const { options, problem } = this.options();
    byId("max-cost-wrong").hidden = !problem;
    byId("max-cost-wrong").textContent = problem ?? "";
    byId("max-cost").setAttribute("aria-invalid", String(Boolean(problem?.includes("cost"))));
    const number = options ? Object.keys(options).length - 1 : 0;
    byId("limits-told").textContent = problem ? "not usable" : number ? `${number} set` : "none set";
  }
}

const NO_LIMITS = { cost: "", agents: "", models: [], topologies: [] };
