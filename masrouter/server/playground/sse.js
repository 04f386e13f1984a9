/* Server-sent events from pieces of text, wherever the pieces are cut. */

/** A function that takes pieces of a stream and calls `onData` with the data of each event. */
export function sseParser(onData) {
  let rest = "";
  let data = [];
  const line = (text) => {
    if (text === "") {
      if (data.length) onData(data.join("\n"));
      data = [];
    } else if (text === "data" || text.startsWith("data:")) {
      data.push(text.slice(5).replace(/^ /, ""));
    }
  };
  return {
    push(piece) {
      rest += piece;
      // A carriage return at the end may be half of a line's end: it waits for the next piece.
      const end = rest.endsWith("\r") ? rest.length - 1 : rest.length;
      const lines = rest.slice(0, end).split(/\r\n|\n|\r/);
      rest = lines.pop() + rest.slice(end);
      lines.forEach(line);
    },
    end() {
      if (rest) line(rest.replace(/\r$/, ""));
      rest = "";
      line("");
    },
  };
}

/** Read a response's body to its end, as events. */
export async function readEvents(body, onData) {
  const decoder = new TextDecoder();
  const parser = sseParser(onData);
  const reader = body.getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      parser.push(decoder.decode(value, { stream: true }));
    }
    parser.push(decoder.decode());
    parser.end();
  } catch (error) {
    reader.cancel().catch(() => {}); // the rest is of no use, and the server may stop
    throw error;
  }
}
