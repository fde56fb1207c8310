// The window, driven by WebKit's own driver: its page reaches the server inside and shows what happens there.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, it } from "node:test";
import { promisify } from "node:util";

import { Builder, By, Capabilities, until } from "selenium-webdriver";

import { makeFilm } from "../phone/film.js";
import { seed } from "../phone/swarm.js";
import * as balcony from "./balcony.js";
import { eventually, open } from "./stage.js";

const APPEARS_WITHIN = 20_000;

let folder, seeder, stage, page, app;

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((done) => server.once("listening", done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "balcony-window-"));
  await makeFilm(join(folder, "film.mp4"), 60);
  seeder = await seed(join(folder, "film.mp4"), join(folder, "film.torrent"));
  stage = await open();
  const port = await freePort();
  stage.start("WebKitWebDriver", ["--host=127.0.0.1", `--port=${port}`], { env: { TAURI_WEBVIEW_AUTOMATION: "true" } });
  await eventually("the driver", async () => (await fetch(`http://127.0.0.1:${port}/status`)).ok);
  const wanted = new Capabilities({ "webkitgtk:browserOptions": { binary: balcony.program(), args: balcony.flags(stage) } });
  wanted.setBrowserName("wry");
  page = await new Builder().withCapabilities(wanted).usingServer(`http://127.0.0.1:${port}`).build();
  app = await balcony.attach(stage);
}, { timeout: 120_000 });

after(async () => {
  await page?.quit().catch(() => {});
  await stage?.end();
  await seeder?.end();
  await rm(folder, { recursive: true, force: true });
});

/** Waits for a text anywhere on the page. */
function shows(text) {
  return page.wait(async () => (await page.executeScript("return document.body.textContent")).includes(text), APPEARS_WITHIN, `the page does not show: ${text}`);
}

it("is given a token of this run, which stands nowhere else", async () => {
  await shows("Your phone plays");
  const { server, token } = await page.executeScript("return window.__BALCONY__");
  assert.equal(server, app.http);
  assert.notEqual(token, app.token);
  const me = await fetch(`http://${server}/api/devices/me`, { headers: { authorization: `Bearer ${token}` } });
  assert.deepEqual([me.status, (await me.json()).admin], [200, true]);
  assert.ok(!(await page.getCurrentUrl()).includes(token));
  const around = await Promise.all(["cmdline", "environ"].map((file) => readFile(`/proc/${app.pid}/${file}`, "latin1")));
  assert.ok(around.every((text) => !text.includes(token)));
  const files = (await readdir(stage.folder, { recursive: true, withFileTypes: true })).filter((file) => file.isFile());
  assert.ok(files.length > 10);
  const { stdout } = await promisify(execFile)("grep", ["-rlaF", "--", token, join(stage.folder, "balcony"), stage.home]).catch((error) => error);
  assert.equal(stdout, "", "it is in a file");
});

it("pairs a phone", { timeout: 60_000 }, async () => {
  const code = await page.wait(async () => /\b[0-9A-Z]{4}[ -]?[0-9A-Z]{4}\b/.exec(await page.findElement(By.css("main")).getText())?.[0], APPEARS_WITHIN);
  const answer = await fetch(`http://${app.http}/api/pair`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ code: code.replace(/\W/g, ""), deviceName: "Pixel 8", platform: "android" }),
  });
  assert.equal(answer.status, 201, await answer.clone().text());
  await shows("Pixel 8");
  app.phone = (await answer.json()).token;
});

it("shows the phone's stream and stops it", { timeout: 60_000 }, async () => {
  const answer = await fetch(`http://${app.http}/api/stream/start`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${app.phone}` },
    body: JSON.stringify({ magnetLink: seeder.magnet }),
  });
  const { streamId } = await answer.json();
  await page.executeScript("location.hash = '#/'");
  await shows("Pixel 8, 360p");
  await shows("film");
  await stage.screenshot("window-stream");
  const stop = await page.wait(until.elementLocated(By.xpath("//button[normalize-space()='Stop' or starts-with(@aria-label, 'Stop')]")), APPEARS_WITHIN);
  await stop.click();
  await eventually("its end", async () => (await app.call("GET", `/api/stream/status/${streamId}`)).status === "stopped");
});

it("turns to the page that the tray asks for", { timeout: 60_000 }, async () => {
  const tray = await stage.tray();
  await tray.click("Pair a phone…");
  await page.wait(async () => (await page.executeScript("return location.hash")) === "#/pair", APPEARS_WITHIN);
});

it("plays a film, with picture and sound, and the tray sees it", { timeout: 90_000 }, async () => {
  const tray = await stage.tray();
  await app.again(seeder.magnet);
  const hash = await page.wait(async () => {
    const hash = await page.executeScript("return location.hash");
    return /^#\/(stream|watch)\//.test(hash) && hash;
  }, APPEARS_WITHIN);
  assert.ok(hash);
  const state = () => page.executeScript(`
    const film = document.querySelector("video");
    return film && { time: film.currentTime, width: film.videoWidth, error: film.error?.message, paused: film.paused,
      frames: film.getVideoPlaybackQuality?.().totalVideoFrames, sounds: film.audioTracks?.length };`);
  await page.wait(state, 40_000, "there is no player");
  // A page may not begin with sound by itself: somebody presses play.
  await eventually("the film", async () => {
    const film = await state();
    if (film?.paused) await page.executeScript("document.querySelector('video').play().catch(() => {})");
    assert.equal(film?.error ?? null, null);
    assert.ok(film?.time > 3, JSON.stringify(film));
    return film;
  }, 40_000);
  const film = await state();
  await stage.screenshot("window-plays");
  assert.equal(film.width, 640, JSON.stringify(film));
  assert.ok(film.frames > 24, JSON.stringify(film));
  assert.equal(film.sounds, 1, JSON.stringify(film));
  await eventually("the tray's word", async () => (await tray.menu())[1].label.startsWith("Watched on this computer"));
});
