// The real server, started as a user would: SERVER_UNDER_TEST names the program. Its folders are temporary.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

const STARTS_WITHIN = 30_000;
const READY_WITHIN = 60_000;

/** Our environment without the settings of the person who runs the test. */
function surroundings() {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("BALCONY_")));
}

/** Starts the server in a folder, on an address of loopback, on free ports or on these; answers what a client needs, and how to end it. */
export async function start(folder, { bind = "127.0.0.1", http = "0", https = "0", more = [], within = STARTS_WITHIN } = {}) {
  const program = process.env.SERVER_UNDER_TEST;
  if (!program) throw new Error("SERVER_UNDER_TEST names no program; build one with: cargo build -p balcony-server");
  const dirs = ["config", "data", "cache"].flatMap((name) => [`--${name}-dir`, join(folder, name)]);
  const flags = ["--bind", bind, "--http-port", http, "--https-port", https, "--no-dht", "--no-mdns", "--allow-private-peers", "--reserve-bytes", "0"];
  const child = spawn(program, [...dirs, ...flags, ...more], { stdio: ["ignore", "pipe", "pipe"], env: surroundings() });
  let log = "";
  child.stderr.on("data", (bytes) => (log += bytes));
  const exit = once(child, "exit");

  const listening = (async () => {
    for await (const line of createInterface({ input: child.stdout })) if (line.startsWith("listening ")) return;
    throw new Error(`the server ended before it listened: ${log}`);
  })();
  try {
    await Promise.race([listening, sleep(within, undefined, { ref: false }).then(() => { throw new Error(`the server does not listen: ${log}`); })]);
  } catch (error) {
    child.kill("SIGKILL");
    throw error;
  }

  const run = JSON.parse(await readFile(join(folder, "data", "run.json"), "utf8"));
  const token = (await readFile(run.adminTokenFile, "utf8")).trim();
  const base = `http://${run.http}`;

  async function call(method, path, body) {
    const answer = await fetch(base + path, {
      method,
      headers: { authorization: `Bearer ${token}`, ...(body && { "content-type": "application/json" }) },
      body: body && JSON.stringify(body),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text ? JSON.parse(text) : undefined;
  }

  return {
    /** `address:port` of both entrances, as run.json tells them. */
    http: run.http,
    https: run.https,
    token,
    /** Asks as the owner. */
    call,
    log: () => log,
    /** Starts a stream and waits until it plays. */
    async stream(request) {
      let stream = await call("POST", "/api/stream/start", request);
      const deadline = Date.now() + READY_WITHIN;
      while (stream.status !== "ready") {
        if (["error", "stopped"].includes(stream.status)) throw new Error(`the stream failed: ${JSON.stringify(stream)}\n${log}`);
        if (Date.now() > deadline) throw new Error(`the stream is not ready: ${JSON.stringify(stream)}\n${log}`);
        await sleep(50);
        stream = await call("GET", `/api/stream/status/${stream.streamId}`);
      }
      return stream;
    },
    stop: (stream) => call("DELETE", `/api/stream/${stream.streamId}`),
    /** Ends the server at once and out of order, as a power cut would; answers how to start it again on the same ports and folders. */
    async cut() {
      child.kill("SIGKILL");
      await exit;
      const [http, https] = [run.http, run.https].map((address) => address.split(":").at(-1));
      return () => start(folder, { bind, http, https, more });
    },
    /** Ends the server in order; answers its exit code. */
    async end() {
      child.kill("SIGTERM");
      const late = setTimeout(() => child.kill("SIGKILL"), 10_000);
      const [code] = await exit;
      clearTimeout(late);
      return code;
    },
  };
}
