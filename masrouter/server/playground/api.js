/* The server's endpoints. Every failure becomes a Failure that says in words what went wrong. */

import { readEvents } from "./sse.js";

/** What went wrong, for people; `status` and `code` for the page. */
export class Failure extends Error {
  constructor(message, { status = null, code = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Requests with the key that was typed; the key lives in this object and nowhere else. */
export class Api {
  #key = "";

  /** Use a key from now on; an empty one is none. Returns false for what no header can carry. */
  use(key) {
    if (!/^[\x21-\x7e]*$/.test(key)) return false;
    this.#key = key;
    return true;
  }

  config = (signal) => this.#json("GET", "v1/playground/config", null, signal);
  decide = (body, signal) => this.#json("POST", "v1/decision", body, signal);
  outcome = (body) => this.#json("POST", "v1/outcomes", body, undefined);

  /** A streamed completion: `onChunk` gets every chunk, errors in the stream are thrown. */
  async complete(body, onChunk, signal) {
    const response = await this.#send("POST", "v1/chat/completions", body, signal);
    if (!response.ok) throw await refusal(response);
    const type = response.headers.get("content-type") ?? "";
    if (!response.body || !type.startsWith("text/event-stream")) {
      throw new Failure("The server answered with something that is not a stream.");
    }
    let finished = false;
    let failure = null;
    const take = (data) => {
      if (data === "[DONE]") {
        finished = true;
        return;
      }
      const chunk = parsed(data);
      if (chunk === undefined) throw new Failure("A part of the stream could not be read.");
      if (chunk.error) failure ??= told(chunk.error, null);
      else onChunk(chunk);
    };
    try {
      await readEvents(response.body, take);
    } catch (error) {
      if (error instanceof Failure || error.name === "AbortError") throw error;
      throw new Failure("The connection broke before the answer was complete.");
    }
    if (failure) throw failure;
    if (!finished) throw new Failure("The stream ended before the answer was complete.");
    return response.headers;
  }

  async #json(method, path, body, signal) {
    const response = await this.#send(method, path, body, signal);
    if (!response.ok) throw await refusal(response);
    const data = parsed(await response.text());
    if (data === undefined || data === null) throw unreadable(response);
    return data;
  }

  async #send(method, path, body, signal) {
    const headers = {};
    if (body) headers["content-type"] = "application/json";
    if (this.#key) headers.authorization = `Bearer ${this.#key}`;
    try {
      return await fetch(path, {
        method,
        headers,
        body: body ? JSON.stringify(body) : undefined,
        signal,
        cache: "no-store",
        credentials: "same-origin",
        redirect: "error",
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Failure("The server cannot be reached. Is it still running?");
    }
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function refusal(response) {
  const data = parsed(await response.text().catch(() => ""));
  if (data?.error) return told(data.error, response.status, response.headers.get("retry-after"));
  return unreadable(response);
}

function told(error, status, wait = null) {
  const said = typeof error.message === "string" && error.message ? error.message : null;
  const later = wait && /^\d+$/.test(wait) ? ` Try again in ${wait} s.` : "";
  return new Failure((said ?? "The server gave no reason.") + later, {
    status,
    code: typeof error.code === "string" ? error.code : null,
  });
}

function unreadable(response) {
  return new Failure(`The server answered ${response.status} with something this page cannot read.`, {
    status: response.status,
  });
}
