// The tray, its menu read and clicked over D-Bus as a panel does it, and what it does: against the real server with a real swarm.

import assert from "node:assert/strict";
import { access, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { makeFilm, run } from "../phone/film.js";
import { seed } from "../phone/swarm.js";
import * as balcony from "./balcony.js";
import { eventually, open } from "./stage.js";

const ICONS = fileURLToPath(new URL("../../icons/tray/", import.meta.url));
const LABELS = [
  "Open Balcony", "Ready", "Pair a phone…", "Add magnet from clipboard", "Streams", "Pause all", "Start at login",
  "Keep awake while streaming", "Open magnet links with Balcony", /^\d.* used$/, "Copy diagnostics", "Quit",
];

let folder, seeder, torrent, stage, app;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "balcony-desktop-"));
  const film = join(folder, "film.mp4");
  torrent = join(folder, "film.torrent");
  await makeFilm(film, 60);
  seeder = await seed(film, torrent);
}, { timeout: 120_000 });

after(async () => {
  await seeder?.end();
  await rm(folder, { recursive: true, force: true });
});

beforeEach(async () => {
  stage = await open();
});

afterEach(async () => {
  await stage?.end();
});

async function there(path) {
  return access(path).then(() => true, () => false);
}

function lines(menu) {
  return menu.filter((entry) => !entry.separator).map((entry) => entry.label);
}

/** Waits until the status line of the tray says this. */
async function says(tray, status) {
  try {
    return await eventually(`the status ${status}`, async () => status.test(lines(await tray.menu())[1]));
  } catch (error) {
    assert.fail(`${error.message}: ${lines(await tray.menu())[1]}`);
  }
}

/** What is to be seen in a picture, whatever its format: the checksum of its points. */
function points(path) {
  return stage.run("identify", ["-format", "%#", path]);
}

/** Waits until the tray shows the icon of this name. */
async function shows(tray, name) {
  const wanted = await points(join(ICONS, `${name}-44.png`));
  await eventually(`the icon ${name}`, async () => {
    const shown = join(stage.folder, "shown.png");
    await writeFile(shown, await tray.icon());
    return (await points(shown)) === wanted;
  });
}

/** Starts the film of this test by a second start of the program, as a browser does it; answers its stream once it plays. */
async function stream(link = seeder.magnet) {
  await app.again(link);
  return eventually("a stream that plays", async () => {
    const { streams } = await app.call("GET", "/api/streams");
    assert.ok(!streams.some(({ status }) => status === "error"), JSON.stringify(streams));
    return streams.find(({ status }) => status === "ready");
  });
}

/** Asks for media as a player does. */
async function watch({ streamUrl }) {
  const text = async (url) => {
    const answer = await fetch(url);
    assert.ok(answer.ok, `${url}: ${answer.status}`);
    return answer.text();
  };
  const master = await text(streamUrl);
  const media = new URL(master.split("\n").find((line) => line && !line.startsWith("#")), streamUrl);
  const segment = new URL((await text(media)).split("\n").find((line) => line && !line.startsWith("#")), media);
  await text(segment);
}

describe("the menu", () => {
  it("is there with its icon, first the way to the window", async () => {
    app = await balcony.start(stage);
    const tray = await stage.tray();
    await says(tray, /^Ready$/);
    const menu = await tray.menu();
    lines(menu).forEach((label, at) => (LABELS[at] instanceof RegExp ? assert.match(label, LABELS[at]) : assert.equal(label, LABELS[at])));
    assert.equal(lines(menu).length, LABELS.length);
    const state = Object.fromEntries(menu.map(({ label, enabled, checked }) => [label, { enabled, checked }]));
    assert.equal(state.Ready.enabled, false);
    assert.deepEqual([state["Pause all"].checked, state["Start at login"].checked, state["Keep awake while streaming"].checked], [false, false, true]);
    assert.deepEqual(lines((await tray.entry("Streams")).entries), ["No streams"]);
    await shows(tray, "idle");
    // The first start shows the window, too.
    assert.equal((await stage.window()).pid, app.pid);
    await sleep(1000);
    await stage.screenshot("tray-first-start");
    await stage.run("xdotool", ["mousemove", "12", "16", "click", "1"]);
    await sleep(500);
    await stage.screenshot("tray-menu");
    await stage.press("Escape");
    await tray.click("Quit");
    assert.equal(await app.running.exit, 0);
    await eventually("the end of the tray item", async () => (await stage.trays()).length === 0);
  });

  it("speaks the system's language", async () => {
    app = await balcony.start(stage, { env: { LANG: "de_DE.UTF-8" } });
    const tray = await stage.tray();
    await says(tray, /^Bereit$/);
    const menu = lines(await tray.menu());
    assert.deepEqual([menu[0], menu.at(-1)], ["Balcony öffnen", "Balcony beenden"]);
    assert.match(menu.at(-3), /^\d.* von \d.* belegt$/);
  });

  it("shows what streams, pauses it and stops it", { timeout: 90_000 }, async () => {
    const login = await balcony.service(stage, "login");
    app = await balcony.start(stage, { env: { DBUS_SYSTEM_BUS_ADDRESS: stage.env.DBUS_SESSION_BUS_ADDRESS } });
    const tray = await stage.tray();
    const playing = await stream();
    await eventually("its line in the menu", () => tray.entry("Streams", /^film\.mp4: Ready/));
    assert.deepEqual(lines((await tray.entry("Streams")).entries).length, 1);
    assert.match(lines((await tray.entry("Streams", /^film/)).entries).join(), /^Ready, (\d+ %|all here),Show,Stop$/);

    await watch(playing);
    await says(tray, /^(1 phone watching|Watched on this computer)/);
    await shows(tray, "active");
    const { what } = await login.hears("a lock against sleep", ({ inhibited }) => inhibited).then(({ inhibited, who }) => ({ what: inhibited, who }));
    assert.ok(["idle", "sleep"].includes(what));
    await stage.screenshot("tray-active");

    await tray.click("Keep awake while streaming");
    await login.hears("the lock's end", ({ released }) => released === "idle");
    assert.equal((await tray.entry("Keep awake while streaming")).checked, false);

    await tray.click("Pause all");
    await says(tray, /^Paused$/);
    assert.equal((await tray.entry("Pause all")).checked, true);
    assert.equal((await app.call("GET", "/api/overview")).paused, true);
    await tray.click("Pause all");
    await eventually("going on", async () => !(await tray.entry("Pause all")).checked);
    assert.equal((await app.call("GET", "/api/overview")).paused, false);

    await tray.click("Streams", /^film\.mp4/, "Stop");
    await eventually("an empty menu", async () => lines((await tray.entry("Streams")).entries)[0] === "No streams");
    assert.equal((await app.call("GET", `/api/stream/status/${playing.streamId}`)).status, "stopped");
    assert.equal(await app.end(), 0);
  });
});

describe("what else is started", () => {
  it("brings the window, which closing only hides", async () => {
    app = await balcony.start(stage);
    const tray = await stage.tray();
    await stage.close(await stage.window());
    await eventually("no window", async () => (await stage.windows()).length === 0);
    await eventually("a word about it", () => stage.notifications().find(({ summary }) => summary === "Balcony goes on"));
    assert.equal((await app.call("GET", "/api/health")).status, "ok");
    await app.again("--hidden");
    await sleep(500);
    assert.deepEqual(await stage.windows(), [], "a hidden start brings nothing");
    await app.again();
    await stage.close(await stage.window());
    await eventually("no window", async () => (await stage.windows()).length === 0);
    await tray.click("Open Balcony");
    await stage.window();
    assert.equal(stage.notifications().filter(({ summary }) => summary === "Balcony goes on").length, 1, "that is said once");
    assert.equal(await app.end(), 0);

    // Not the first start any more: the tray is enough.
    app = await balcony.start(stage);
    await says(await stage.tray(), /^Ready$/);
    assert.deepEqual(await stage.windows(), []);
    assert.equal((await stage.trays()).length, 1);
    await app.end();
  });

  it("hands over a magnet, a torrent file, and what is wrong with them", async () => {
    const notifications = await balcony.service(stage, "notifications");
    app = await balcony.start(stage, { args: ["--hidden"] });
    await stage.tray();
    assert.deepEqual(await stage.windows(), []);
    const { streamId, infoHash } = await stream();
    await stage.window();
    await stream(torrent);
    const { streams } = await app.call("GET", "/api/streams");
    assert.deepEqual(streams.map((stream) => [stream.streamId, stream.infoHash]), [[streamId, infoHash]], "the same film, the same stream");

    await app.again("magnet:?dn=nothing");
    const refused = await notifications.hears("a refusal", ({ summary }) => summary === "This film was not added");
    assert.match(refused.body, /not a magnet link/);
    await app.again(join(folder, "nowhere.torrent"));
    await notifications.hears("another refusal", ({ body }) => /nowhere\.torrent cannot be read/.test(body ?? ""));
    await app.end();
  });

  it("comes with a magnet itself", async () => {
    app = await balcony.start(stage, { args: [seeder.magnet, "--hidden"] });
    await stage.window();
    await eventually("a stream", async () => (await app.call("GET", "/api/streams")).count === 1);
    await app.end();
  });

  it("takes a magnet from the clipboard, and says when there is none", async () => {
    const notifications = await balcony.service(stage, "notifications");
    app = await balcony.start(stage, { args: ["--hidden"] });
    const tray = await stage.tray();
    await stage.copy("nothing of that kind");
    await tray.click("Add magnet from clipboard");
    await notifications.hears("a word about it", ({ summary }) => summary === "There is no magnet link in the clipboard");
    assert.deepEqual(await stage.windows(), []);
    await stage.copy(`have a look: ${seeder.magnet}\n`);
    await tray.click("Add magnet from clipboard");
    await eventually("a stream", async () => (await app.call("GET", "/api/streams")).count === 1);
    await stage.window();
    await app.end();
  });
});

describe("the session", () => {
  it("starts it at login when asked to", async () => {
    app = await balcony.start(stage, { args: ["--hidden"] });
    const tray = await stage.tray();
    const entry = join(stage.env.XDG_CONFIG_HOME, "autostart/Balcony.desktop");
    assert.equal(await there(entry), false);
    await tray.click("Start at login");
    await eventually("the entry", () => there(entry));
    assert.match(await readFile(entry, "utf8"), /^Exec=.*balcony"? --hidden$/m);
    await eventually("the mark", async () => (await tray.entry("Start at login")).checked);
    await app.end();

    app = await balcony.start(stage, { args: ["--hidden"] });
    const again = await stage.tray();
    await eventually("the mark after a restart", async () => (await again.entry("Start at login")).checked);
    await again.click("Start at login");
    await eventually("no entry", async () => !(await there(entry)));
    await eventually("no mark", async () => !(await again.entry("Start at login")).checked);
    await app.end();
  });

  it("gives it magnet links when asked to", async () => {
    app = await balcony.start(stage, { args: ["--hidden"] });
    const tray = await stage.tray();
    const asked = () => stage.run("xdg-mime", ["query", "default", "x-scheme-handler/magnet"]);
    assert.equal((await asked()).trim(), "");
    await tray.click("Open magnet links with Balcony");
    await eventually("the handler", async () => (await asked()).trim() === "balcony-handler.desktop");
    await eventually("the mark", async () => (await tray.entry("Open magnet links with Balcony")).checked);
    await tray.click("Open magnet links with Balcony");
    await eventually("no handler", async () => (await asked()).trim() === "");
    await app.end();
  });

  it("ends it at logout", async () => {
    const session = await balcony.service(stage, "session");
    app = await balcony.start(stage);
    await stage.tray();
    await session.hears("its name", ({ registered }) => registered === "app.balcony.desktop");
    session.tell("end");
    assert.equal(await app.running.exit, 0);
    assert.ok(session.told().some(({ answered }) => answered));
  });

  it("hears what happens, with what to do", async () => {
    const notifications = await balcony.service(stage, "notifications");
    app = await balcony.start(stage, { args: ["--hidden"] });
    const tray = await stage.tray();
    await says(tray, /^Ready$/);
    const { offerId, url } = await app.call("POST", "/api/pairings", {});
    const [, , secret] = new URL(url).hash.slice(1).split(".");
    const { token } = await app.call("POST", "/api/pair", { offerId, secret, deviceName: "Pixel 8", platform: "android" });
    const paired = await notifications.hears("the newcomer", ({ summary }) => summary === "Pixel 8 was paired");
    assert.equal(paired.actions.revoke, "Revoke");
    const asking = await notifications.hears("a question", ({ summary }) => summary === "Start Balcony when you log in?");
    await stage.screenshot("tray-notified");

    const entry = join(stage.env.XDG_CONFIG_HOME, "autostart/Balcony.desktop");
    assert.equal(await there(entry), false, "nothing is forced");
    notifications.tell(`${asking.id} start-at-login`);
    await eventually("the entry", () => there(entry));
    notifications.tell(`${paired.id} revoke`);
    await notifications.hears("its end", ({ summary }) => summary === "Pixel 8 was revoked");
    const answer = await fetch(`http://${app.http}/api/devices/me`, { headers: { authorization: `Bearer ${token}` } });
    assert.equal(answer.status, 401);

    await app.call("POST", "/api/stream/start", { magnetLink: seeder.magnet });
    const ready = await notifications.hears("the film", ({ summary }) => summary === "film.mp4 is ready");
    assert.deepEqual(await stage.windows(), []);
    notifications.tell(`${ready.id} default`);
    await stage.window();
    await app.end();
  });

  it("can paste its diagnostics", async () => {
    const notifications = await balcony.service(stage, "notifications");
    app = await balcony.start(stage, { args: ["--hidden"] });
    const tray = await stage.tray();
    await says(tray, /^Ready$/);
    await tray.click("Copy diagnostics");
    await notifications.hears("a word about it", ({ summary }) => summary === "Diagnostics copied");
    const copied = await stage.run("xclip", ["-o", "-selection", "clipboard"]);
    assert.match(copied, /ffmpeg/);
    assert.ok(!copied.includes(app.token));
    await app.end();
  });
});

describe("the end", () => {
  it("comes in order by a signal in the middle of a conversion, and leaves no child", { timeout: 120_000 }, async () => {
    const film = join(folder, "old.avi");
    await run("ffmpeg", [
      "-nostdin", "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=640x360:r=24:d=120", "-c:v", "mpeg4", "-b:v", "2M", film,
    ]);
    const old = await seed(film, join(folder, "old.torrent"));
    try {
      app = await balcony.start(stage);
      await stage.window();
      await watch(await stream(old.magnet));
      // Nobody reads on, so ffmpeg waits in the middle of the film.
      const all = await eventually("ffmpeg at work", async () => {
        const all = await balcony.family(app.pid);
        return all.some(({ name }) => name === "ffmpeg") && all;
      });
      assert.ok(all.some(({ name }) => name.startsWith("WebKit")), JSON.stringify(all));
      const began = Date.now();
      assert.equal(await app.end("SIGTERM"), 0);
      assert.ok(Date.now() - began < 2500, `it took ${Date.now() - began} ms`);
      // The window's own processes end when they see that it is gone.
      assert.deepEqual((await balcony.living(all)).filter(({ name }) => !name.startsWith("WebKit")), []);
      await eventually("the end of the window's processes", async () => (await balcony.living(all)).length === 0, 3000);
      assert.equal(await there(join(app.data, "run.json")), false);
    } finally {
      await old.end();
    }
  });

  it("is the same by SIGINT", async () => {
    app = await balcony.start(stage, { args: ["--hidden"] });
    await stage.tray();
    assert.equal(await app.end("SIGINT"), 0);
  });

  it("comes at once, with the reason, where a server holds the folder already", async () => {
    const notifications = await balcony.service(stage, "notifications");
    app = await balcony.start(stage, { args: ["--headless"] });
    const second = stage.start(balcony.program(), balcony.flags(stage));
    assert.equal(await second.exit, 1);
    assert.match(second.stderr, new RegExp(`${app.pid}`));
    const told = await notifications.hears("the reason", ({ summary }) => summary === "Balcony cannot start");
    assert.match(told.body, new RegExp(`${app.pid}`));
    assert.equal((await app.call("GET", "/api/health")).status, "ok");
    assert.equal(await app.end(), 0);
  });
});

describe("without a display", () => {
  for (const [what, env] of [["none named", { DISPLAY: "", WAYLAND_DISPLAY: "" }], ["one that is not there", { DISPLAY: ":4999" }]]) {
    it(`it says so and serves: ${what}`, async () => {
      app = await balcony.start(stage, { env });
      assert.match(app.running.stderr, /^There is no display: Balcony runs without a tray and a window\..*$/m);
      assert.equal((await app.call("GET", "/api/health")).status, "ok");
      assert.deepEqual(await stage.trays(), []);
      assert.equal(await app.end(), 0);
    });
  }
});
