// A desktop of its own for a test: a screen (Xvfb), a session bus, a window manager (openbox), a panel that shows tray items
// (xfce4-panel) and a daemon that shows notifications. Nothing of it is the desktop of whoever runs the test, its home is a
// temporary folder, and what was started on it ends with it.
//
// It knows trays, menus, windows and pictures, and nothing of Balcony.

import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { read } from "./gvariant.js";

const STARTS_WITHIN = 20_000;
const APPEARS_WITHIN = 20_000;
const ENDS_WITHIN = 10_000;
const SAYS_WITHIN = 500;
// A place for a program to write its display or address to.
const TELLING = { stdio: ["ignore", "pipe", "pipe", "pipe"] };
const WATCHER = ["org.kde.StatusNotifierWatcher", "/StatusNotifierWatcher"];
const DBUSMENU = "com.canonical.dbusmenu";
const MARK = "STAGE_OF_TEST";

const PANEL = `<?xml version="1.0" encoding="UTF-8"?>
<channel name="xfce4-panel" version="1.0">
  <property name="configver" type="int" value="2"/>
  <property name="panels" type="array">
    <value type="int" value="1"/>
    <property name="panel-1" type="empty">
      <property name="position" type="string" value="p=6;x=0;y=0"/>
      <property name="position-locked" type="bool" value="true"/>
      <property name="length" type="uint" value="100"/>
      <property name="size" type="uint" value="32"/>
      <property name="plugin-ids" type="array"><value type="int" value="1"/></property>
    </property>
  </property>
  <property name="plugins" type="empty"><property name="plugin-1" type="string" value="systray"/></property>
</channel>
`;

/** Asks until it answers something; throws when that takes too long. What it throws itself counts as nothing yet. */
export async function eventually(what, ask, within = APPEARS_WITHIN) {
  const deadline = Date.now() + within;
  for (;;) {
    let why = "";
    try {
      const answer = await ask();
      if (answer) return answer;
    } catch (error) {
      why = `: ${error.message}`;
    }
    if (Date.now() > deadline) throw new Error(`${what} did not come within ${within / 1000} s${why}`);
    await sleep(25);
  }
}

/** A program on the stage: what it said, how it ended. */
class Program {
  #said = { stdout: "", stderr: "" };

  constructor(name, args, options) {
    this.name = name;
    this.child = spawn(name, args, { stdio: ["ignore", "pipe", "pipe"], ...options });
    this.pid = this.child.pid;
    /** Exit code, or the name of the signal. */
    this.exit = new Promise((resolve) => {
      this.child.once("close", (code, signal) => resolve(code ?? signal));
      // What it leaves behind may hold its output open.
      this.child.once("exit", (code, signal) => setTimeout(resolve, SAYS_WITHIN, code ?? signal));
    });
    for (const stream of ["stdout", "stderr"]) this.child[stream].on("data", (bytes) => (this.#said[stream] += bytes));
    this.child.on("error", (error) => (this.#said.stderr += `${error}\n`));
  }

  get stdout() { return this.#said.stdout; }

  get stderr() { return this.#said.stderr; }

  get ended() { return this.child.exitCode !== null || this.child.signalCode !== null || this.pid === undefined; }

  /** The first line that it writes to this stream (1: output, 3: an extra pipe). */
  async firstLine(number) {
    let line = "";
    const read = (async () => {
      for await (const bytes of this.child.stdio[number]) {
        line += bytes;
        if (line.includes("\n")) return line.split("\n")[0];
      }
      throw new Error(`${this.name} ended: ${this.stderr}`);
    })();
    return Promise.race([read, late(`${this.name} says nothing`, STARTS_WITHIN)]);
  }

  /** Asks it to end, and makes it when it does not; answers its exit. */
  async end(signal = "SIGTERM") {
    if (this.ended) return this.exit;
    this.child.kill(signal);
    const force = setTimeout(() => this.child.kill("SIGKILL"), ENDS_WITHIN);
    try {
      return await this.exit;
    } finally {
      clearTimeout(force);
    }
  }
}

/** Throws after a while, unless something ends sooner: for a race. */
export async function late(what, within = APPEARS_WITHIN) {
  await sleep(within, undefined, { ref: false });
  throw new Error(`${what} after ${within / 1000} s`);
}

/** A tray item as its panel knows it. */
class Tray {
  #stage;
  #item;

  constructor(stage, item) {
    this.#stage = stage;
    const slash = item.indexOf("/");
    this.#item = { name: item.slice(0, slash), path: item.slice(slash) };
  }

  /** A property of org.kde.StatusNotifierItem: Title, Status, IconName, IconThemePath, Menu … */
  property(name) {
    return this.#stage.property(this.#item.name, this.#item.path, "org.kde.StatusNotifierItem", name);
  }

  /** The bytes of the picture that it shows now. */
  async icon() {
    const [name, folder] = [await this.property("IconName"), await this.property("IconThemePath")];
    const files = name.startsWith("/") ? [name, `${name}.png`] : [join(folder, `${name}.png`), join(folder, name)];
    for (const file of files) {
      try {
        return await readFile(file);
      } catch (error) {
        if (error.code !== "ENOENT") throw error;
      }
    }
    throw new Error(`the tray's icon is not at ${files.join(" or ")}`);
  }

  async #ask(method, ...args) {
    return this.#stage.call(this.#item.name, await this.property("Menu"), `${DBUSMENU}.${method}`, ...args);
  }

  /** The whole menu: entries with id, label, enabled, visible, separator, checked (undefined where nothing is to be checked), entries. */
  async menu() {
    const [, root] = await this.#ask("GetLayout", "0", "-1", "[]");
    return entries(root);
  }

  /** The entry at the end of a path of labels, each a text or a pattern. Throws when there is none. */
  async entry(...path) {
    const menu = await this.menu();
    return path.reduce((found, label) => {
      const next = found.entries.find((entry) => !entry.separator && (label instanceof RegExp ? label.test(entry.label) : entry.label === label));
      if (!next) throw new Error(`the tray's menu has no ${label}: ${JSON.stringify(found.entries.map((entry) => entry.label))}`);
      return next;
    }, { entries: menu });
  }

  /** Chooses the entry at the end of a path of labels. */
  async click(...path) {
    const { id, label, enabled } = await this.entry(...path);
    if (!enabled) throw new Error(`${label} is greyed out`);
    await this.#ask("Event", String(id), "clicked", "<int32 0>", "0");
  }
}

function entries([, , children]) {
  return children.map(([id, properties, deeper]) => ({
    id,
    // One underscore marks a key, two are one.
    label: (properties.label ?? "").replace(/_(.)/g, "$1"),
    separator: properties.type === "separator",
    enabled: properties.enabled ?? true,
    visible: properties.visible ?? true,
    checked: properties["toggle-type"] ? properties["toggle-state"] === 1 : undefined,
    entries: entries([id, properties, deeper]),
  }));
}

class Stage {
  #programs = [];
  #notified;

  constructor(folder) {
    this.folder = folder;
    this.home = join(folder, "home");
    const own = Object.entries(process.env).filter(([name]) => !/^(XDG_|BALCONY_|DBUS_|WAYLAND_|DISPLAY$|XAUTHORITY$|GTK_|LC_|LANGUAGE$)/.test(name));
    /** What programs on this stage find around them. */
    this.env = {
      ...Object.fromEntries(own),
      HOME: this.home,
      LANG: "C.UTF-8",
      XDG_CONFIG_HOME: join(this.home, ".config"),
      XDG_DATA_HOME: join(this.home, ".local/share"),
      XDG_CACHE_HOME: join(this.home, ".cache"),
      XDG_STATE_HOME: join(this.home, ".local/state"),
      XDG_RUNTIME_DIR: join(folder, "run"),
      XDG_CURRENT_DESKTOP: "XFCE",
      XDG_SESSION_TYPE: "x11",
      GDK_BACKEND: "x11",
      GTK_USE_PORTAL: "0",
      NO_AT_BRIDGE: "1",
      GSETTINGS_BACKEND: "memory",
      LIBGL_ALWAYS_SOFTWARE: "1",
      // There is no sound card: GStreamer would look for one.
      PULSE_SERVER: `unix:${folder}/no-sound`,
      [MARK]: folder,
    };
  }

  async build(size) {
    const settings = join(this.env.XDG_CONFIG_HOME, "xfce4/xfconf/xfce-perchannel-xml");
    await mkdir(settings, { recursive: true });
    await mkdir(this.env.XDG_RUNTIME_DIR, { mode: 0o700 });
    await writeFile(join(settings, "xfce4-panel.xml"), PANEL);

    const screen = this.start("Xvfb", ["-displayfd", "3", "-screen", "0", size, "-nolisten", "tcp", "-noreset"], TELLING);
    this.env.DISPLAY = `:${await screen.firstLine(3)}`;
    const bus = this.start("dbus-daemon", ["--session", "--nofork", "--nopidfile", "--print-address=3"], TELLING);
    this.env.DBUS_SESSION_BUS_ADDRESS = await bus.firstLine(3);
    this.#notified = this.start("dbus-monitor", ["--session", "interface='org.freedesktop.Notifications',member='Notify'"]);
    this.start("openbox", ["--sm-disable"]);
    await eventually("the window manager", async () => (await this.run("wmctrl", ["-m"])).includes("Openbox"));
    this.start("xfce4-panel", ["--disable-wm-check"]);
    await eventually("the panel's tray", () => this.property(...WATCHER, WATCHER[0], "IsStatusNotifierHostRegistered"));
  }

  /** Starts a program on this stage. It is ended with the stage, if not before. */
  start(name, args = [], { env = {}, ...options } = {}) {
    const program = new Program(name, args, { env: { ...this.env, ...env }, cwd: this.folder, ...options });
    this.#programs.push(program);
    return program;
  }

  /** Runs a program on this stage to its end; answers what it said. */
  async run(name, args = [], options) {
    const program = this.start(name, args, options);
    const exit = await Promise.race([program.exit, late(`${name} does not end`, STARTS_WITHIN)]);
    this.#programs.splice(this.#programs.indexOf(program), 1);
    if (exit !== 0) throw new Error(`${name} ${args.join(" ")} ended with ${exit}: ${program.stderr}`);
    return program.stdout;
  }

  /** Asks a service of the session bus: the name, the path, "interface.Method", the arguments in GVariant's text form. */
  async call(name, path, method, ...args) {
    return read(await this.run("gdbus", ["call", "--session", "--timeout", "10", "--dest", name, "--object-path", path, "--method", method, "--", ...args]));
  }

  async property(name, path, face, property) {
    const [value] = await this.call(name, path, "org.freedesktop.DBus.Properties.Get", face, property);
    return value;
  }

  /** All tray items that the panel shows. */
  async trays() {
    const items = await this.property(...WATCHER, WATCHER[0], "RegisteredStatusNotifierItems");
    return items.map((item) => new Tray(this, item));
  }

  /** The one tray item, as soon as there is one. */
  tray(within) {
    return eventually("a tray item", async () => (await this.trays())[0], within);
  }

  /** All windows of applications: id, pid, title. Hidden ones are none. */
  async windows() {
    let lines;
    try {
      lines = await this.run("wmctrl", ["-l", "-p"]);
    } catch (error) {
      // A window manager that has never seen a window knows no list.
      if (/Cannot get client list/.test(error.message)) return [];
      throw error;
    }
    const rows = lines.split("\n").filter(Boolean).map((line) => /^(\S+) +(-?\d+) +(\d+) +\S+ ?(.*)$/.exec(line));
    return rows.filter(([, , desktop]) => desktop !== "-1").map(([, id, , pid, title]) => ({ id, pid: Number(pid), title }));
  }

  /** The one window, as soon as there is one. */
  window(within) {
    return eventually("a window", async () => (await this.windows())[0], within);
  }

  /** Closes a window the way its cross does. */
  close(window) {
    return this.run("wmctrl", ["-i", "-c", window.id]);
  }

  /** Presses a key (xdotool's name, "Escape") in whatever has the keyboard. */
  press(key) {
    return this.run("xdotool", ["key", key]);
  }

  /** Puts a text into the clipboard. */
  async copy(text) {
    const keeper = this.start("xclip", ["-quiet", "-selection", "clipboard"], { stdio: ["pipe", "pipe", "pipe"] });
    keeper.child.stdin.end(text);
    await eventually("the text in the clipboard", async () => (await this.run("xclip", ["-o", "-selection", "clipboard"])) === text);
  }

  /** What was notified so far: program, summary, body, in order. */
  notifications() {
    return this.#notified.stdout.split(/^method call /m).slice(1).flatMap((call) => {
      const texts = [...call.matchAll(/^ {3}string "(.*)"$/gm)].map(([, text]) => text);
      return texts.length < 4 ? [] : [{ program: texts[0], summary: texts[2], body: texts[3] }];
    });
  }

  /** A picture of the whole screen, kept as NAME.png in $PICTURES, else in the stage's own folder. Answers its path. */
  async screenshot(name) {
    const folder = process.env.PICTURES || this.folder;
    await mkdir(folder, { recursive: true });
    const path = join(folder, `${name}.png`);
    await this.run("import", ["-window", "root", path]);
    return path;
  }

  /** Every process that was started on this stage, by whomever: pid and command line. */
  async processes() {
    const found = [];
    for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
      try {
        const around = await readFile(`/proc/${pid}/environ`, "latin1");
        if (!around.split("\0").includes(`${MARK}=${this.folder}`)) continue;
        found.push({ pid: Number(pid), command: (await readFile(`/proc/${pid}/cmdline`, "utf8")).split("\0").join(" ").trim() });
      } catch {
        // It ended meanwhile, or is somebody else's.
      }
    }
    return found.filter(({ command }) => command);
  }

  /** Ends everything that runs here, also what was started by the bus or left behind by a program, and removes the folder. */
  async end() {
    for (const program of this.#programs.reverse()) await program.end();
    for (const signal of ["SIGTERM", "SIGKILL"]) {
      for (const { pid } of await this.processes()) {
        try {
          process.kill(pid, signal);
        } catch {
          // It ended by itself.
        }
      }
      for (const deadline = Date.now() + 3000; (await this.processes()).length && Date.now() < deadline;) await sleep(50);
    }
    await rm(this.folder, { recursive: true, force: true, maxRetries: 3 });
  }
}

/** Sets up a stage. */
export async function open({ size = "1280x800x24" } = {}) {
  const stage = new Stage(await mkdtemp(join(tmpdir(), "balcony-stage-")));
  try {
    await stage.build(size);
    return stage;
  } catch (error) {
    await stage.end();
    throw error;
  }
}
