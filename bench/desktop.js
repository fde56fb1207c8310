// How long after its start a program's tray item is seen: desktop.js TIMES FLOOR PICTURES PROGRAM
//
// On one stage, in turn: the least program with a tray (FLOOR, which shows a picture of PICTURES), PROGRAM in fresh folders, and PROGRAM
// started hidden in the same folders again, as at login. Prints {"floor": […], "first": […], "login": […]} in milliseconds. Seen means
// that the panel has drawn it: its pixels are looked at, from when the panel says that there is an item.

import { mkdtemp } from "node:fs/promises";
import { join } from "node:path";

import { eventually, late, open } from "../tests/desktop/stage.js";

const [times, floor, pictures, program] = process.argv.slice(2);
const PANEL = ["-window", "root", "-crop", "64x32+0+0", "txt:-"];
const QUIET = { BALCONY_BIND: "127.0.0.1", BALCONY_HTTP_PORT: "0", BALCONY_HTTPS_PORT: "0", BALCONY_NO_DHT: "true", BALCONY_NO_MDNS: "true" };

const stage = await open();
const panel = () => stage.run("import", PANEL);
const watch = stage.start("gdbus", ["monitor", "--session", "--dest", "org.kde.StatusNotifierWatcher"]);
const registered = () => watch.stdout.split("StatusNotifierItemRegistered").length - 1;

/** Starts it, waits until its tray item is seen, ends it and waits until it is gone. Milliseconds from start to seen. */
async function seen(name, args, options) {
  const [empty, before] = [await panel(), registered()];
  const began = performance.now();
  const started = stage.start(name, args, options);
  const told = new Promise((resolve) => {
    const look = () => {
      if (registered() === before) return;
      watch.child.stdout.off("data", look);
      resolve();
    };
    watch.child.stdout.on("data", look);
  });
  const failed = started.exit.then((exit) => { throw new Error(`${name} ended with ${exit}: ${started.stderr}`); });
  failed.catch(() => {}); // it ends in any case, later
  await Promise.race([told, failed, late(`no tray item of ${name}`)]);
  await eventually("the tray item", async () => (await panel()) !== empty);
  const took = performance.now() - began;
  await eventually("the tray's menu", async () => (await (await stage.tray()).menu()).length);
  await started.end();
  await eventually("an empty panel", async () => (await panel()) === empty);
  return took;
}

try {
  await eventually("the panel", async () => watch.stdout.includes("owned by"));
  await seen(floor, [pictures]); // the first of all fills the caches of the panel
  const values = { floor: [], first: [], login: [] };
  for (let turn = 0; turn < Number(times); turn += 1) {
    const folder = await mkdtemp(join(stage.folder, "turn-"));
    const folders = Object.fromEntries(["CONFIG", "DATA", "CACHE"].map((name) => [`BALCONY_${name}_DIR`, join(folder, name)]));
    values.floor.push(await seen(floor, [pictures]));
    values.first.push(await seen(program, [], { env: { ...QUIET, ...folders } }));
    values.login.push(await seen(program, ["--hidden"], { env: { ...QUIET, ...folders } }));
  }
  console.log(JSON.stringify(values));
} finally {
  await stage.end();
}
