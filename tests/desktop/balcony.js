// The desktop program, started on a stage as a user would start it: DESKTOP_UNDER_TEST names it. Its folders lie on the stage.

import { once } from "node:events";
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { eventually } from "./stage.js";

const SERVICES = fileURLToPath(new URL("services.py", import.meta.url));
const FLAGS = [
  "--bind", "127.0.0.1", "--http-port", "0", "--https-port", "0", "--no-dht", "--no-mdns", "--no-trackers", "--allow-private-peers",
  "--reserve-bytes", "0",
];

/** What the program is started with for a test: folders on the stage, nothing that reaches further. */
export function flags(stage, name = "balcony") {
  return ["config", "data", "cache"].flatMap((folder) => [`--${folder}-dir`, join(stage.folder, name, folder)]).concat(FLAGS);
}

/** The path of the program. */
export function program() {
  const path = process.env.DESKTOP_UNDER_TEST;
  if (!path) throw new Error("DESKTOP_UNDER_TEST names no program; build one with: cargo build -p balcony");
  return path;
}

/** Starts it and waits until its server listens. */
export async function start(stage, { args = [], env = {}, name = "balcony" } = {}) {
  const running = stage.start(program(), [...flags(stage, name), ...args], { env });
  const app = await attach(stage, { env, name, running });
  return { ...app, running, end: (signal) => running.end(signal) };
}

/** What a test needs of one that was started by whomever, once its server listens. */
export async function attach(stage, { env = {}, name = "balcony", running } = {}) {
  const data = join(stage.folder, name, "data");
  const run = await eventually("run.json", async () => {
    if (running?.ended) throw new Error(`it ended: ${running.stderr}`);
    const run = JSON.parse(await readFile(join(data, "run.json"), "utf8"));
    return (!running || run.pid === running.pid) && run;
  });
  const token = (await readFile(run.adminTokenFile, "utf8")).trim();
  return {
    pid: run.pid,
    data,
    token,
    http: run.http,
    /** Starts it a second time with these arguments; answers when that has ended. */
    again: (...more) => stage.run(program(), [...flags(stage, name), ...more], { env }),
    /** Asks its server as the owner, by the token of the command line. */
    async call(method, path, body) {
      const answer = await fetch(`http://${run.http}${path}`, {
        method,
        headers: { authorization: `Bearer ${token}`, ...(body && { "content-type": "application/json" }) },
        body: body && JSON.stringify(body),
      });
      const text = await answer.text();
      if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
      return text ? JSON.parse(text) : undefined;
    },
  };
}

/** A service of the session that the stage lacks (see services.py); keeps what it tells. */
export async function service(stage, kind, options) {
  const running = stage.start("/usr/bin/python3", [SERVICES, kind], { stdio: ["pipe", "pipe", "pipe"], ...options });
  const told = () => running.stdout.split("\n").slice(0, -1).map((line) => JSON.parse(line));
  await eventually(`the service ${kind}`, () => told().some(({ ready }) => ready));
  return {
    /** Everything that it told so far. */
    told,
    /** The first that fits, as soon as there is one. */
    hears: (what, fits, within) => eventually(what, () => told().find(fits), within),
    tell: (line) => running.child.stdin.write(`${line}\n`),
    async end() {
      const gone = once(running.child, "close");
      running.child.stdin.end();
      await gone;
    },
  };
}

/** The processes of /proc by pid: parent, the moment of birth, and the program's name. */
async function table() {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const rows = await Promise.all(pids.map(async (pid) => {
    try {
      const [, name, rest] = /\((.*)\) (.*)$/s.exec(await readFile(`/proc/${pid}/stat`, "latin1"));
      const fields = rest.split(" ");
      return fields[0] === "Z" ? [] : [Number(pid), { name, parent: Number(fields[1]), born: fields[19] }];
    } catch {
      return [];
    }
  }));
  return new Map(rows.filter((row) => row.length));
}

/** All that a process has started, itself included: what was caged has no mark of the stage. */
export async function family(pid) {
  const all = await table();
  const members = [[pid, all.get(pid)]];
  for (const [parent] of members) members.push(...[...all].filter(([, child]) => child.parent === parent));
  return members.map(([pid, process]) => ({ pid, ...process }));
}

/** Those of these processes that still run. */
export async function living(members) {
  const all = await table();
  return members.filter(({ pid, born }) => all.get(pid)?.born === born);
}
