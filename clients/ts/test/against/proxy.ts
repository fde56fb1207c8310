// A bad line between client and server: drops, delays, pages of a proxy, half answers, silence. By a seed, so that a failure can be had again.

import { once } from "node:events";
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

import { seeded } from "../fakes.js";

export type Fault = "drop" | "gateway" | "half" | "silence" | "late";
const FAULTS: readonly Fault[] = ["drop", "gateway", "half", "silence", "late"];
/** Faults that the caller feels; what is only late arrives. */
const FELT: readonly Fault[] = ["drop", "gateway", "half", "silence"];

export interface BadLine {
  base: string;
  /** What was done to requests, counted. */
  done: Record<Fault | "fine" | "cut", number>;
  /** From now on no request suffers. */
  heal: () => void;
  end: () => Promise<void>;
}

export interface Badness {
  seed: number;
  /** Of all requests, how many suffer. */
  share: number;
  /** Milliseconds after which an event stream is cut, at most. */
  cutAfter?: number;
  /** Event streams do not come through at all: the proxy holds them back. */
  noEvents?: boolean;
}

/** Stands before a server. A request that changes something suffers at most twice in a row, so that no call's tries are used up. */
export async function badLine(target: string, { seed, share, cutAfter, noEvents }: Badness): Promise<BadLine> {
  const random = seeded(seed);
  const done: BadLine["done"] = { drop: 0, gateway: 0, half: 0, silence: 0, late: 0, fine: 0, cut: 0 };
  const inRow = new Map<string, number>();
  let healed = false;

  const fault = (asked: IncomingMessage): Fault | undefined => {
    if (healed || random() >= share) return undefined;
    const picked = FAULTS[Math.floor(random() * FAULTS.length)] as Fault;
    if (asked.method === "GET" || !FELT.includes(picked)) return picked;
    const key = `${asked.method} ${asked.url}`;
    const count = (inRow.get(key) ?? 0) + 1;
    inRow.set(key, count > 2 ? 0 : count);
    return count > 2 ? undefined : picked;
  };

  const pass = (asked: IncomingMessage, answer: ServerResponse, how: Fault | undefined): void => {
    const { pathname, search, host } = new URL(asked.url ?? "/", target);
    const onward = request(target, { method: asked.method, path: pathname + search, headers: { ...asked.headers, host } });
    onward.on("error", () => answer.destroy());
    answer.on("close", () => onward.destroy());
    onward.on("response", (theirs) => {
      const events = theirs.headers["content-type"]?.includes("event-stream") ?? false;
      if (events && noEvents && !healed) return theirs.resume();
      answer.writeHead(theirs.statusCode ?? 502, theirs.headers);
      answer.flushHeaders();
      if (how === "half" && !events) {
        theirs.once("data", (bytes: Buffer) => answer.write(bytes.subarray(0, bytes.length / 2), () => answer.destroy()));
        return theirs;
      }
      if (events && cutAfter && !healed) {
        const timer = setTimeout(() => {
          done.cut++;
          answer.destroy();
        }, random() * cutAfter);
        answer.on("close", () => clearTimeout(timer));
      }
      return theirs.pipe(answer);
    });
    asked.pipe(onward);
  };

  const server = createServer((asked, answer) => {
    const how = fault(asked);
    done[how ?? "fine"]++;
    if (how === "drop") asked.socket.destroy();
    else if (how === "gateway") answer.writeHead(502, { "content-type": "text/html" }).end("<html><h1>502 Bad Gateway</h1></html>");
    else if (how === "silence") asked.resume();
    else if (how === "late") setTimeout(() => pass(asked, answer, how), 50 + random() * 400);
    else pass(asked, answer, how);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    base: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    done,
    heal: () => void (healed = true),
    async end() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}
