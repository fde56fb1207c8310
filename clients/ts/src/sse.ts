// Server-sent events out of bytes, as the HTML standard says (section 9.2.6, "Interpreting an event stream"). `id` and `retry` are
// left out: the server repeats how things stand on every connection, and the pace of coming back is ours.

/** More than this in one event is no event of ours. Characters. */
const LIMIT = 8 * 1024 * 1024;

export interface ServerEvent {
  /** `message` where the server names none. */
  type: string;
  data: string;
}

/** Reads events from chunks that may be cut anywhere, within a character and between CR and LF too. */
export class EventParser {
  // A byte order mark at the beginning is dropped by the decoder.
  readonly #decoder = new TextDecoder();
  #rest = "";
  #afterCr = false;
  #type = "";
  #data: string[] = [];
  #size = 0;

  /** The events that this chunk completes. Throws RangeError where one grows without end. */
  push(chunk: Uint8Array): ServerEvent[] {
    let text = this.#decoder.decode(chunk, { stream: true });
    if (this.#afterCr && text) {
      if (text.startsWith("\n")) text = text.slice(1);
      this.#afterCr = false;
    }
    // A CR at the very end is an end of line already; an LF that follows in the next chunk belongs to it.
    this.#afterCr ||= text.endsWith("\r");
    const lines = (this.#rest + text).split(/\r\n|\n|\r/);
    this.#rest = lines.pop() ?? "";
    if (this.#rest.length + this.#size > LIMIT) throw new RangeError("an event without an end");
    const events: ServerEvent[] = [];
    for (const line of lines) {
      const event = this.#line(line);
      if (event) events.push(event);
    }
    return events;
  }

  #line(line: string): ServerEvent | undefined {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (field === "event") this.#type = value;
    if (field === "data") {
      this.#data.push(value);
      this.#size += value.length + 1;
    }
    return undefined;
  }

  #dispatch(): ServerEvent | undefined {
    const event = this.#data.length ? { type: this.#type || "message", data: this.#data.join("\n") } : undefined;
    this.#type = "";
    this.#data = [];
    this.#size = 0;
    return event;
  }
}
