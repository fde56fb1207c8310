// An evening in one house: the owner's page on the computer, the phones of two people, a real swarm, the real server behind TLS. The code
// is read from a picture of the page; what one person watches goes on where it was, on another device of theirs, after the server was
// killed, until the owner sends the phone away. On the way every page is looked at (look.js).
//
// SERVER_UNDER_TEST names the server's program. 127.0.0.2 stands for the LAN: the server treats every address but 127.0.0.1 so.

import assert from "node:assert/strict";
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it as step } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import qr from "jsqr";
import png from "pngjs";

import * as balcony from "./balcony.js";
import * as browsers from "./chromium.js";
import { makeFilm } from "./film.js";
import { DESK, faults, look, PHONE } from "./look.js";
import { seed } from "./swarm.js";

const LAN = "127.0.0.2";
const PIXEL = "Mozilla/5.0 (Linux; Android 15; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36";
const TABLET = "Mozilla/5.0 (Linux; Android 15; Pixel Tablet) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";
const SECONDS = 120;
const PATIENCE = 30_000;
const WAIT = { timeout: PATIENCE };
/** What a browser says of a server that is gone, of questions that are refused for a reason, and of a policy for what it has not. */
const EXPECTED = /net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|CONNECTION_CLOSED|EMPTY_RESPONSE|INCOMPLETE_CHUNKED_ENCODING|SOCKET_NOT_CONNECTED|NETWORK_IO_SUSPENDED|FAILED)|status of (401|403|404|410|422|503|504)|Unrecognized feature: 'web-share'/;

let isOver = false;
/** One part of the evening. Each needs those before it. */
function it(name, part) {
  step(name, { timeout: 120_000 }, async (context) => {
    if (isOver) return context.skip("a part before it failed");
    isOver = true;
    await part();
    isOver = false;
  });
}

const ends = [];
/** What pages complained of. */
const said = [];
let folder, server, browser, pack, other, lan;

async function device(options) {
  const context = await browser.newContext({ locale: "en-GB", ...options });
  await context.addInitScript(() => addEventListener("securitypolicyviolation", (event) => console.error(`violation ${event.violatedDirective} ${event.blockedURI}`)));
  context.on("page", (page) => {
    page.setDefaultTimeout(PATIENCE);
    page.on("pageerror", (error) => said.push(`${page.url()}: ${error.stack}`));
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type()) && !EXPECTED.test(message.text())) said.push(`${page.url()}: ${message.text()} ${message.location().url}`);
    });
  });
  return context;
}

const handheld = { viewport: PHONE, userAgent: PIXEL, isMobile: true, hasTouch: true };

async function ownersPage(options = {}) {
  const context = await device({ viewport: DESK, ...options });
  await context.addInitScript((token) => location.protocol === "http:" && localStorage.setItem("balcony.token", token), server.token);
  return context.newPage();
}

/** A device that is paired by the API, as an app would do it. Without a person it is somebody new. */
async function paired(name, options, person) {
  const { code } = await server.call("POST", "/api/pairings", person ? { personId: person } : {});
  const context = await device({ ...handheld, ...options });
  const page = await context.newPage();
  await page.goto(`https://${server.https}/pair`);
  await page.evaluate(async (body) => {
    const answer = await fetch("/api/pair", { method: "POST", headers: { "content-type": "application/json" }, body });
    localStorage.setItem("balcony.token", (await answer.json()).token);
  }, JSON.stringify({ code, deviceName: name, platform: "Android phone" }));
  await page.goto(`https://${server.https}/`);
  return page;
}

const seen = async (page, text) => {
  try {
    await page.getByText(text).first().waitFor({ state: "visible", ...WAIT });
  } catch {
    assert.fail(`${text} is not seen on ${page.url()}:\n${await page.locator("body").innerText()}\n${server.log().slice(-3000)}`);
  }
};
const unseen = (page, text) => page.getByText(text).first().waitFor({ state: "hidden", ...WAIT });
const button = (page, name) => page.getByRole("button", { name, exact: typeof name === "string" }).first();

const film = (page) =>
  page.evaluate(() => {
    const video = document.querySelector("video");
    return video && { time: video.currentTime, paused: video.paused, pictures: video.getVideoPlaybackQuality().totalVideoFrames, sound: video.webkitAudioDecodedByteCount };
  });

/** Waits until the film on a page plays at a time or behind it. */
async function reaches(page, time) {
  const isThere = (time) => { const video = document.querySelector("video"); return video && !video.seeking && !video.paused && video.currentTime >= time; };
  await page.waitForFunction(isThere, time, WAIT).catch(async () => {
    assert.fail(`the film does not reach ${time} s: ${JSON.stringify(await film(page))}\n${await page.locator("body").innerText()}\n${said.join("\n")}\n${server.log().slice(-3000)}`);
  });
}

async function plays(page) {
  const first = await film(page);
  await reaches(page, first.time + 1.5);
  const second = await film(page);
  assert.ok(second.pictures > first.pictures + 10, `pictures: ${first.pictures} to ${second.pictures}`);
  assert.ok(second.sound > first.sound, `bytes of sound: ${first.sound} to ${second.sound}`);
}

/** Brings the player's controls back and leaves them there for a moment. */
async function wake(page) {
  await page.mouse.move(200, 200);
  await page.mouse.move(200, 210);
}

async function jump(page, part) {
  await wake(page);
  const { x, y, width, height } = await page.getByRole("slider", { name: "Position" }).boundingBox();
  await page.mouse.click(x + width * part, y + height / 2);
}

/** The film stands, so that its controls stay and a picture of it is worth looking at. */
async function halt(page) {
  await wake(page);
  await button(page, "Pause").click();
}

async function leave(page) {
  await wake(page);
  await button(page, "Close the player").click();
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "balcony-house-"));
  ends.push(() => rm(folder, { recursive: true, force: true }));
  const season = join(folder, "Lighthouse S01");
  await mkdir(season);
  const first = join(season, "Lighthouse S01E01 The Lamp.mp4");
  await makeFilm(first, SECONDS);
  for (const name of ["Lighthouse S01E02 Fog.mp4", "Lighthouse S01E10 A Ship.mp4"]) await copyFile(first, join(season, name));
  await writeFile(join(season, "notes.nfo"), "Made for an evening.");
  const single = join(folder, "Harbour.mp4");
  await copyFile(first, single);
  [pack, other] = [await seed(season, join(folder, "pack.torrent")), await seed(single, join(folder, "other.torrent"))];
  ends.push(() => pack.end(), () => other.end());
  // A dropped file says nothing of those who share it; the server is told of one.
  server = await balcony.start(folder, { bind: LAN, more: ["--metadata-timeout", "8s", "--peer", other.peer] });
  ends.push(() => server.end());
  await server.call("PATCH", "/api/settings", { name: "Studio" });
  lan = `http://${LAN}:${server.http.split(":").pop()}`;
  const authority = join(folder, "authority.pem");
  await writeFile(authority, await (await fetch(`${lan}/ca.pem`)).text());
  browser = await browsers.open(await browsers.makeHome(join(folder, "home"), authority));
  ends.push(() => browser.close());
}, { timeout: 180_000 });

after(async () => {
  for (const end of ends.reverse()) await end();
});

describe("an evening in one house", () => {
  let desk, phone, tablet, guest;
  let anna, scanned;

  it("begins with a code that a camera reads", async () => {
    desk = await ownersPage();
    await desk.goto(`http://${server.http}/`);
    await seen(desk, "This computer fetches.");
    await seen(desk, /New code in [12]:\d\d/);
    await desk.locator(".qr img").waitFor(WAIT);
    const { width, height, data } = png.PNG.sync.read(await desk.screenshot());
    const found = (qr.default ?? qr)(new Uint8ClampedArray(data), width, height);
    assert.ok(found, "no code is found in the picture of the page");
    const url = new URL(found.data);
    assert.match(url.hash, /^#v1\.[\w-]+\.[\w-]+\.[\w-]+$/);
    scanned = `${lan}${url.pathname}${url.hash}`;
    assert.equal(url.port, new URL(lan).port);
  });

  it("tells the owner once what it may be used for", async () => {
    await seen(desk, "Use Balcony for films that you may download and share.");
    await look(desk, "desk-first");
    await button(desk, "Understood").click();
    await unseen(desk, "Use Balcony for films");
    // The first question of the page is about it, so it would be there.
    const asked = desk.waitForResponse((answer) => answer.url().endsWith("/api/notice") && answer.request().method() === "GET");
    await desk.reload();
    assert.equal((await asked).status(), 200);
    await seen(desk, "This computer fetches.");
    assert.equal(await desk.getByText("Use Balcony for films").count(), 0);
    await desk.locator(".qr img").waitFor(WAIT);
    const { width, height, data } = png.PNG.sync.read(await desk.screenshot());
    scanned = lan + "/p" + new URL((qr.default ?? qr)(new Uint8ClampedArray(data), width, height).data).hash;
  });

  it("pairs the phone that follows the code, and the computer says who came", async () => {
    const context = await device(handheld);
    await context.grantPermissions(["clipboard-read", "clipboard-write"]);
    phone = await context.newPage();
    await phone.goto(scanned);
    await phone.waitForURL(`https://${server.https}/pair*`, WAIT);
    await seen(phone, "Pair with Studio");
    await look(phone, "phone-pair");
    await phone.locator("#name").fill("Anna’s Pixel");
    await button(phone, "Pair").tap();
    await phone.waitForURL(`https://${server.https}/`, WAIT);
    await seen(phone, "Nothing here yet");
    assert.equal(new URL(phone.url()).hash, "");
    await seen(desk, "Anna’s Pixel was paired just now.");
    await look(desk, "desk-newcomer");
    const { devices } = await server.call("GET", "/api/devices");
    anna = devices.find(({ name }) => name === "Anna’s Pixel");
    assert.ok(anna);
  });

  it("tells the phone once, too", async () => {
    await seen(phone, "Use Balcony for films that you may download and share.");
    await look(phone, "phone-empty");
    await button(phone, "Understood").tap();
    await unseen(phone, "Use Balcony for films");
    const asked = phone.waitForResponse((answer) => answer.url().endsWith("/api/notice") && answer.request().method() === "GET");
    await phone.reload();
    assert.equal((await asked).status(), 200);
    await seen(phone, "Nothing here yet");
    assert.equal(await phone.getByText("Use Balcony for films").count(), 0);
  });

  it("says what is wrong with a link", async () => {
    await phone.locator("#magnet").fill("https://example.org/film.torrent");
    await button(phone, "Play").tap();
    await seen(phone, "That is not a magnet link.");
    await look(phone, "phone-wrong-link");
    await phone.locator("#magnet").fill("");
    await phone.evaluate(() => navigator.clipboard.writeText("milk, bread"));
    await button(phone, "Paste").tap();
    await seen(phone, "There is no magnet link to paste.");
  });

  it("takes a pasted link, and lets a film of the pack be chosen", async () => {
    await pack.pace(120_000);
    await phone.evaluate((magnet) => navigator.clipboard.writeText(`Lighthouse ${magnet}`), pack.magnet);
    await button(phone, "Paste").tap();
    await seen(phone, "Choose a film");
    const names = await phone.locator(".row .clamp").allInnerTexts();
    assert.deepEqual(names, ["S01E01 The Lamp.mp4", "S01E02 Fog.mp4", "S01E10 A Ship.mp4"]);
    await phone.getByText("1 other file").tap();
    await seen(phone, "Not films: notes.nfo");
    await look(phone, "phone-files");
    await button(phone, /S01E02 Fog/).tap();
  });

  it("says what it waits for while the line is slow", async () => {
    await seen(phone, /Fetching the beginning: \d+\s%|Waiting for the first bytes|table of contents|Plays in about/);
    await seen(phone, /\d+\skB\/s/);
    await seen(phone, "1 peer");
    await seen(phone, "It begins by itself.");
    assert.equal(await phone.locator("video").count(), 0);
    await look(phone, "phone-wait");
    const card = desk.locator("#streams article").first();
    await card.getByText("Anna’s Pixel").waitFor(WAIT);
    await card.getByText("1 peer").waitFor(WAIT);
    await look(desk, "desk-preparing");
    await button(phone, "Back").tap();
    await seen(phone, "My streams");
    await look(phone, "phone-home-waiting");
    await phone.locator("#streams a").first().tap();
  });

  it("begins by itself, with picture and sound", async () => {
    await pack.pace(0);
    await reaches(phone, 1);
    await plays(phone);
    await seen(desk, "1 phone watching");
    await look(desk, "desk-watching");
    await desk.getByRole("button", { name: /^More about/ }).first().click();
    await desk.getByRole("menuitem", { name: "Show details" }).click();
    await seen(desk, "Info hash");
    await look(desk, "desk-details");
  });

  it("jumps, and goes on where it was left", async () => {
    await jump(phone, 0.5);
    await reaches(phone, SECONDS * 0.5);
    await plays(phone);
    await halt(phone);
    const { time } = await film(phone);
    await look(phone, "player");
    await button(phone, "More").click();
    await phone.getByRole("dialog").waitFor(WAIT);
    await look(phone, "player-more");
    await phone.keyboard.press("Escape");
    await leave(phone);
    await seen(phone, "Continue watching");
    await seen(phone, /\d+\ss left/);
    await look(phone, "phone-home");
    await phone.locator(".film").first().tap();
    await reaches(phone, time - 3);
    const back = await film(phone);
    assert.ok(back.time < time + 15, `left at ${time} s, back at ${back.time} s`);
    await halt(phone);
  });

  it("goes on on another device of the same person, and is nobody else's business", async () => {
    const { time } = await film(phone);
    await desk.goto(`http://${server.http}/#/pair`);
    await desk.locator(".keycode").filter({ hasText: /^\s*\w{4} \w{4}/ }).waitFor(WAIT);
    await look(desk, "desk-pair");
    tablet = await (await device({ ...handheld, viewport: { width: 800, height: 1280 }, userAgent: TABLET })).newPage();
    await tablet.goto(`https://${server.https}/`);
    await tablet.locator("#code").fill(await desk.locator(".keycode > :first-child").innerText());
    await tablet.locator("#name").fill("Anna’s Tablet");
    await button(tablet, "Pair").tap();
    await seen(tablet, "Nothing here yet");
    await seen(desk, "Anna’s Tablet is paired");
    await look(desk, "desk-paired");
    // It came in as somebody of its own; the owner says whose it is.
    await desk.getByRole("navigation").getByText("Devices").click();
    await seen(desk, "Anna’s Tablet");
    await desk.getByRole("button", { name: "More about Anna’s Tablet" }).click();
    await desk.getByRole("menuitem", { name: "Give to another person" }).click();
    await seen(desk, "Whose is Anna’s Tablet?");
    await look(desk, "desk-move");
    await desk.getByRole("dialog").getByRole("button", { name: anna.person, exact: true }).click();
    await seen(desk, /Anna’s Tablet is .* now\./);
    await look(desk, "desk-devices");
    await tablet.reload();
    await seen(tablet, /left, from Anna’s Pixel/);
    await tablet.locator(".film").first().tap();
    await reaches(tablet, time - 3);
    assert.ok((await film(tablet)).time < time + 15);
    await halt(tablet);

    guest = await paired("Ben’s phone");
    await seen(guest, "Nothing here yet");
    const { streams } = await server.call("GET", "/api/streams");
    await guest.goto(`https://${server.https}/#/stream/${streams[0].streamId}`);
    await seen(guest, "This film is not here any more");
    await look(guest, "phone-gone");
    const answer = await guest.evaluate(async () => (await fetch("/api/history", { headers: { authorization: `Bearer ${localStorage.getItem("balcony.token")}` } })).json());
    assert.deepEqual(answer.films, []);
  });

  it("is stopped, and comes back by Undo", async () => {
    await leave(tablet);
    const { time } = await film(phone);
    await wake(phone);
    await button(phone, "More").click();
    await button(phone, /^Stop the film/).click();
    await seen(phone, /was stopped\./);
    await seen(phone, "Continue watching");
    await look(phone, "phone-stopped");
    await button(phone, "Undo").tap();
    await reaches(phone, time - 3);
    await plays(phone);
  });

  it("survives that the phone is put away", async () => {
    const { time } = await film(phone);
    const inside = await phone.context().newCDPSession(phone);
    await inside.send("Page.setWebLifecycleState", { state: "frozen" });
    await sleep(3000);
    await inside.send("Page.setWebLifecycleState", { state: "active" });
    await reaches(phone, time + 2);
    await plays(phone);
  });

  it("plays on while the server is killed, and goes on when it is back", async () => {
    await jump(phone, 0.2);
    await reaches(phone, SECONDS * 0.2 + 1);
    const again = await server.cut();
    const { time } = await film(phone);
    await seen(phone, /does not answer/);
    await reaches(phone, time + 2);
    await seen(desk, /Studio does not answer. Trying again in \d+ s/);
    await look(desk, "desk-lost");
    await look(phone, "player-lost");
    // The pages themselves are kept on a phone that trusts the certificate.
    await guest.goto(`https://${server.https}/`);
    await seen(guest, /does not answer/);
    await look(guest, "phone-lost");
    server = await again();
    await unseen(phone, /does not answer/);
    await unseen(desk, /does not answer/);
    await jump(phone, 0.7);
    await reaches(phone, SECONDS * 0.7);
    await plays(phone);
    await guest.goto(`https://${server.https}/`);
    await seen(guest, "Nothing here yet");
  });

  it("says that nobody shares a film", async () => {
    await guest.locator("#magnet").fill(`magnet:?xt=urn:btih:${"0123456789".repeat(4)}`);
    await button(guest, "Play").tap();
    await seen(guest, "Looking what is in this link");
    await look(guest, "phone-looking");
    await seen(guest, "Nobody shares this film right now");
    await look(guest, "phone-nobody");
    await guest.goto(`https://${server.https}/`);
    await seen(guest, "My streams");
    await look(guest, "phone-home-failed");
  });

  it("takes a dropped torrent file on the computer", async () => {
    await desk.getByRole("navigation").getByText("Home").click();
    const bytes = [...(await readFile(join(folder, "other.torrent")))];
    await desk.evaluate((bytes) => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([new Uint8Array(bytes)], "other.torrent", { type: "application/x-bittorrent" }));
      for (const type of ["dragover", "drop"]) document.body.dispatchEvent(new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer }));
    }, bytes);
    await desk.getByText("Harbour").first().waitFor(WAIT);
    await desk.locator("#streams article", { hasText: "Harbour" }).getByText("All here").waitFor(WAIT);
    await look(desk, "desk-home");
  });

  it("changes settings, and says how it stands", async () => {
    await desk.getByRole("navigation").getByText("Settings").click();
    await seen(desk, "Storage");
    await look(desk, "desk-settings");
    await desk.getByRole("textbox", { name: "Name of this computer" }).waitFor(WAIT);
    const { settings } = await server.call("GET", "/api/settings");
    assert.equal(settings.name.value, "Studio");
    await desk.getByLabel("Keep films for").selectOption({ label: "3 days" });
    await seen(desk, "Films are deleted 3 days after they were started");
    assert.equal((await server.call("GET", "/api/settings")).settings.expireAfter.value, 3 * 86_400);
    await desk.getByRole("textbox", { name: "Name of this computer" }).fill("Attic");
    await desk.keyboard.press("Enter");
    await desk.locator(".side").getByText("Attic").waitFor(WAIT);
    assert.equal((await server.call("GET", "/api/settings")).settings.name.value, "Attic");
    await desk.getByRole("navigation").getByText("Diagnostics").click();
    await desk.getByRole("heading", { name: "Diagnostics" }).waitFor(WAIT);
    await unseen(desk, "Checking");
    await look(desk, "desk-diagnostics");
    await guest.goto(`https://${server.https}/#/settings`);
    await seen(guest, "How films come");
    await look(guest, "phone-settings");
  });

  it("speaks German", async () => {
    const german = await ownersPage({ locale: "de-DE" });
    await german.goto(`http://${server.http}/`);
    for (const [path, title] of [["", "Start"], ["devices", "Geräte"], ["settings", "Einstellungen"], ["diagnostics", "Diagnose"], ["pair", "Telefon koppeln"]]) {
      await german.evaluate((path) => { location.hash = `#/${path}`; }, path);
      await german.getByRole("heading", { name: title, exact: true, level: 1 }).waitFor(WAIT);
      assert.equal(await german.evaluate(() => document.documentElement.lang), "de");
      await german.getByText("Prüft", { exact: true }).first().waitFor({ state: "hidden", ...WAIT });
      await look(german, `de-desk-${path || "home"}`);
    }
    await german.context().close();
    const jan = await paired("Jans Handy", { locale: "de-DE" });
    await seen(jan, "Noch nichts hier");
    await look(jan, "de-phone-empty");
    await jan.goto(`https://${server.https}/#/settings`);
    await jan.getByRole("heading", { name: "Sprache" }).waitFor(WAIT);
    await look(jan, "de-phone-settings");
    await jan.goto(`https://${server.https}/#/files?magnet=${encodeURIComponent(pack.magnet)}`);
    await jan.getByRole("button", { name: /S01E01/ }).waitFor(WAIT);
    await look(jan, "de-phone-files");
    await jan.getByRole("button", { name: /S01E01/ }).tap();
    await reaches(jan, 1);
    await wake(jan);
    await button(jan, "Anhalten").click();
    await look(jan, "de-player");
    await jan.context().close();
  });

  it("ends for the phone that the owner revokes", async () => {
    await jump(phone, 0.1);
    if ((await film(phone)).paused) await button(phone, /^Play/).click();
    await reaches(phone, SECONDS * 0.1);
    await desk.getByRole("navigation").getByText("Devices").click();
    await desk.getByRole("main").getByRole("button", { name: "Revoke Anna’s Pixel" }).last().click();
    await seen(desk, "Revoke Anna’s Pixel?");
    await look(desk, "desk-revoke");
    await desk.getByRole("alertdialog").getByRole("button", { name: "Revoke" }).click();
    await seen(phone, "No longer paired");
    assert.equal(await phone.locator("video").count(), 0);
    assert.equal(await phone.evaluate(() => localStorage.getItem("balcony.token")), null);
    await look(phone, "phone-revoked");
    await button(phone, "Type a code").tap();
    await seen(phone, "Its eight characters");
    await look(phone, "phone-code");
  });

  step("leaves nothing to complain of", () => {
    assert.deepEqual(faults, []);
    assert.deepEqual(said, []);
  });
});
