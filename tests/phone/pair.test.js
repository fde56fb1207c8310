// A phone meets the server as a person would: the code is scanned, the page of trust finds out whether the phone trusts the server,
// the phone is paired, a film plays. And what must not go through: a foreign certificate, a wrong code, a revoked phone.
//
// SERVER_UNDER_TEST names the server's program. 127.0.0.2 stands for the LAN: the server treats every address but 127.0.0.1 so.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import * as balcony from "./balcony.js";
import * as browsers from "./chromium.js";
import * as shelf from "./shelf.js";

const LAN = "127.0.0.2";
const IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1";
const PIXEL = "Mozilla/5.0 (Linux; Android 15; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36";
const KEY = "balcony.token";
const WAIT = { timeout: 20_000 };

const command = promisify(execFile);
const ends = [];
/** Everything that must never stand in an address or a log. */
const secrets = [];
/** All addresses that any browser asked for, and what any page said against its policy. */
const asked = [];
const violations = [];
let folder, server, stranger, friend, lan, fingerprint;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "balcony-pair-"));
  ends.push(() => rm(folder, { recursive: true, force: true }));
  server = await balcony.start(folder, { bind: LAN, more: ["--name", "Studio", "--log", "trace,librqbit=info"] });
  ends.push(() => server.end());
  lan = `http://${LAN}:${server.http.split(":").pop()}`;
  ({ fingerprint } = await server.call("GET", "/api/health"));
  const authority = join(folder, "authority.pem");
  await writeFile(authority, await (await fetch(`${lan}/ca.pem`)).text());
  stranger = await browsers.open(await browsers.makeHome(join(folder, "stranger")));
  ends.push(() => stranger.close());
  friend = await browsers.open(await browsers.makeHome(join(folder, "friend"), authority));
  ends.push(() => friend.close());
}, { timeout: 120_000 });

after(async () => {
  for (const end of ends.reverse()) await end();
});

/** A phone with nothing in it yet. */
async function phone(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 390, height: 844 }, userAgent: PIXEL, isMobile: true, hasTouch: true, ...options });
  context.on("request", (request) => asked.push(request.url(), request.headers().referer ?? ""));
  context.on("console", (message) => {
    if (message.text().startsWith("violation") || message.text().includes("Content Security Policy")) violations.push(`${message.page()?.url()}: ${message.text()}`);
  });
  await context.addInitScript(() => addEventListener("securitypolicyviolation", (event) => console.error(`violation ${event.violatedDirective} ${event.blockedURI}`)));
  return context;
}

/** Opens an offer as the owner; the text of its QR code leads to the address that stands for the LAN. */
async function offer(wishes = {}) {
  const opened = await server.call("POST", "/api/pairings", wishes);
  const url = new URL(opened.url);
  secrets.push(url.hash.split(".")[2], opened.code);
  return { ...opened, text: `${lan}/p${url.hash}` };
}

const seen = (page, text) => page.getByText(text).first().waitFor({ state: "visible", ...WAIT });
const token = (page) => page.evaluate((key) => localStorage.getItem(key), KEY);

/** A phone that is paired; by the API, as an app would do it. */
async function paired(options) {
  const { code } = await offer();
  const body = JSON.stringify({ code, deviceName: "Pixel 8", platform: "Android phone" });
  const context = await phone(friend, options);
  const page = await context.newPage();
  await page.goto(`https://${server.https}/pair`);
  const made = await page.evaluate(async ([key, body]) => {
    const answer = await (await fetch("/api/pair", { method: "POST", headers: { "content-type": "application/json" }, body })).json();
    localStorage.setItem(key, answer.token);
    return answer;
  }, [KEY, body]);
  secrets.push(made.token);
  return { context, page, id: made.deviceId };
}

describe("the page of trust", () => {
  it("can be read without a script", async () => {
    for (const [agent, step, hidden] of [[IPHONE, "Certificate Trust Settings", "Install anyway"], [PIXEL, "Install anyway", "Certificate Trust Settings"]]) {
      const context = await phone(stranger, { userAgent: agent, javaScriptEnabled: false });
      const page = await context.newPage();
      await page.goto(`${lan}/p`);
      await seen(page, step);
      assert.equal(await page.getByText(hidden).isVisible(), false);
      assert.equal((await page.locator(".fp").first().textContent()).replaceAll(" ", ""), Buffer.from(fingerprint, "base64url").toString("hex").toUpperCase());
      // The other kind is one tap away, without a script too.
      await page.locator(".seg label", { hasText: agent === IPHONE ? "Android" : "iPhone" }).tap();
      await seen(page, hidden);
      await context.close();
    }
  });

  it("says that this phone does not trust the server, and waits", async () => {
    const context = await phone(stranger);
    const page = await context.newPage();
    const { text } = await offer();
    await page.goto(text);
    await seen(page, "Not trusted yet.");
    await seen(page, /Checked \d+ s ago/);
    assert.equal(page.url(), text);
    assert.equal(await page.locator("#without").getAttribute("href"), `https://${server.https}/pair${new URL(text).hash}`);
    await context.close();
  });

  it("stops where another fingerprint answers than was scanned", async () => {
    const context = await phone(friend);
    const page = await context.newPage();
    const { text } = await offer();
    const other = text.replace(/[^.]+$/, Buffer.alloc(16, 7).toString("base64url"));
    const requests = [];
    page.on("request", (request) => requests.push(request.url()));
    await page.goto(other);
    await page.getByRole("heading", { name: "Stop here" }).waitFor(WAIT);
    await seen(page, "0707 0707 0707 0707 0707 0707 0707 0707");
    assert.equal(await page.locator("a:visible").count(), 0, "nothing leads on from here");
    await page.waitForTimeout(2500);
    assert.deepEqual(requests.filter((url) => url.startsWith("https:")), []);
    await context.close();
  });

  it("gives nothing else to the LAN", async () => {
    for (const [path, status, to] of [
      ["/", [302, 303, 307, 308], "/p"],
      ["/pair", [308], `https://${server.https}/pair`],
      ["/api/devices", [403]],
      ["/api/streams", [403]],
    ]) {
      const answer = await fetch(lan + path, { redirect: "manual" });
      assert.ok(status.includes(answer.status), `${path}: ${answer.status}`);
      if (to) assert.equal(new URL(answer.headers.get("location"), lan).href, new URL(to, lan).href);
    }
  });
});

describe("the certificate", () => {
  const bytes = async (path) => {
    const answer = await fetch(lan + path);
    assert.equal(answer.status, 200, path);
    const head = await fetch(lan + path, { method: "HEAD" });
    assert.equal(head.status, 200, path);
    assert.equal(head.headers.get("content-type"), answer.headers.get("content-type"));
    return { type: answer.headers.get("content-type"), bytes: Buffer.from(await answer.arrayBuffer()) };
  };

  it("is the same in every form", async () => {
    const [der, pem] = [await bytes("/ca.crt"), await bytes("/ca.pem")];
    assert.equal(der.type, "application/x-x509-ca-cert");
    assert.equal(pem.type, "application/x-pem-file");
    const inner = pem.bytes.toString().match(/-----BEGIN CERTIFICATE-----([^-]+)-----END CERTIFICATE-----/)[1];
    assert.deepEqual(Buffer.from(inner, "base64"), der.bytes);
  });

  it("comes to iOS as a profile that stays the same", async () => {
    const [first, second, der] = [await bytes("/ca.mobileconfig"), await bytes("/ca.mobileconfig"), await bytes("/ca.crt")];
    assert.equal(first.type, "application/x-apple-aspen-config");
    assert.deepEqual(first.bytes, second.bytes);
    const path = join(folder, "profile.mobileconfig");
    await writeFile(path, first.bytes);
    const read = "import plistlib,json,sys; print(json.dumps(plistlib.load(open(sys.argv[1],'rb')), default=lambda b: b.hex()))";
    const profile = JSON.parse((await command("python3", ["-c", read, path])).stdout);
    assert.equal(profile.PayloadType, "Configuration");
    assert.equal(profile.PayloadDisplayName, "Balcony: Studio");
    const [payload] = profile.PayloadContent;
    assert.equal(payload.PayloadType, "com.apple.security.root");
    assert.equal(payload.PayloadContent, der.bytes.toString("hex"));
    for (const { PayloadUUID, PayloadIdentifier, PayloadVersion } of [profile, payload]) {
      assert.match(PayloadUUID, /^[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}$/);
      assert.match(PayloadIdentifier, /^app\.balcony\.trust\.[0-9a-f]+/);
      assert.equal(PayloadVersion, 1);
    }
    assert.notEqual(profile.PayloadUUID, payload.PayloadUUID);
  });
});

describe("a phone that trusts the server", () => {
  let context, page, first;
  before(async () => {
    context = await phone(friend);
    page = await context.newPage();
    first = await offer();
  });
  after(() => context?.close());

  it("is told so by itself, and goes on", async () => {
    // As long as HTTPS fails, it is a phone without the certificate.
    await context.route(`https://${server.https}/api/health`, (route) => route.abort());
    await page.goto(first.text);
    await seen(page, "Not trusted yet.");
    await context.unroute(`https://${server.https}/api/health`);
    await seen(page, "This phone trusts “Studio”");
    await page.waitForURL(`https://${server.https}/pair*`, WAIT);
    await seen(page, "Pair with Studio");
  });

  it("is paired by one tap, and the secret leaves the address", async () => {
    assert.equal(await page.locator("#name").inputValue(), "Pixel 8");
    await page.locator("#name").fill("Anna’s Pixel");
    await page.getByRole("button", { name: "Pair", exact: true }).tap();
    await page.waitForURL(`https://${server.https}/`, WAIT);
    await seen(page, "Nothing here yet");
    secrets.push(await token(page));
    assert.ok((await token(page)).length >= 43);
    const { devices } = await server.call("GET", "/api/devices");
    assert.deepEqual(devices.filter(({ name }) => name === "Anna’s Pixel").map(({ platform }) => platform), ["Android phone"]);
    await page.goBack().catch(() => {});
    assert.equal(new URL(page.url()).hash, "");
  });

  it("is not paired twice", async () => {
    await page.goto(`https://${server.https}/pair${new URL(first.text).hash}`);
    await seen(page, "Already paired");
    await seen(page, "Anna’s Pixel");
    await page.waitForURL(`https://${server.https}/`, WAIT);
  });

  it("plays the sample film", { timeout: 240_000 }, async () => {
    await page.goto(`https://${server.https}/`);
    await page.getByText("Play the sample film").tap();
    // It is made when it is asked for first, by a computer that may have other things to do.
    await page.waitForURL(/#\/stream\//, { timeout: 150_000 });
    await page.waitForFunction(() => document.querySelector("video")?.currentTime > 1, undefined, { timeout: 60_000 }).catch(async () => {
      assert.fail(`the film does not play: ${await page.locator("body").innerText()}`);
    });
    const shown = await page.evaluate(() => {
      const video = document.querySelector("video");
      return { width: video.videoWidth, frames: video.getVideoPlaybackQuality().totalVideoFrames };
    });
    assert.ok(shown.width > 0 && shown.frames > 0, JSON.stringify(shown));
    const { streams } = await server.call("GET", "/api/streams");
    const list = await (await context.request.get(streams[0].streamUrl, { ignoreHTTPSErrors: true })).text();
    assert.match(list, /^#EXTM3U/);
  });

  it("finds its film in the list, and stops it", async () => {
    await page.goto(`https://${server.https}/`);
    await seen(page, "My streams");
    await page.locator("#streams a").first().tap();
    await page.waitForFunction(() => document.querySelector("video")?.currentTime > 0, undefined, { timeout: 60_000 });
    // The controls have left by themselves.
    await page.locator("video").tap();
    await page.getByRole("button", { name: "More" }).tap();
    await page.getByRole("button", { name: "Stop the film" }).tap();
    await page.locator("#streams").waitFor({ state: "detached", ...WAIT });
    assert.equal((await server.call("GET", "/api/streams")).streams.filter(({ status }) => status !== "stopped").length, 0);
  });

  it("says what is wrong with a link", async () => {
    await page.locator("#magnet").fill("https://example.org/film.torrent");
    await page.locator("#go").tap();
    await seen(page, "That is not a magnet link.");
  });

  it("hears at once that it is revoked", async () => {
    const { devices } = await server.call("GET", "/api/devices");
    await server.call("DELETE", `/api/devices/${devices.find(({ name }) => name === "Anna’s Pixel").id}`);
    await page.getByText("No longer paired").waitFor({ state: "visible", timeout: 4000 });
    assert.equal(await token(page), null);
    await page.reload();
    await seen(page, "Type the code");
  });

  it("cannot come back by the code that was used", async () => {
    await page.goto(first.text);
    await seen(page, "Pair with Studio");
    await page.getByRole("button", { name: "Pair", exact: true }).tap();
    await seen(page, "This code has ended. The computer shows a new one.");
    assert.equal(new URL(page.url()).hash, "");
    assert.equal(await token(page), null);
  });
});

describe("a typed code", () => {
  it("is counted when it is wrong, and read leniently when it is right", async () => {
    const { code } = await offer();
    const context = await phone(friend, { userAgent: IPHONE });
    const page = await context.newPage();
    await page.goto(`${lan}/`);
    await page.waitForURL(`https://${server.https}/pair`, WAIT);
    const plain = code.replace(/[^0-9A-Z]/g, "");
    const pair = page.getByRole("button", { name: "Pair", exact: true });
    await page.locator("#code").fill("abc");
    await pair.tap();
    await seen(page, "The code has eight letters and digits.");
    await page.locator("#code").fill(plain === "00000000" ? "11111111" : "00000000");
    await pair.tap();
    await seen(page, "That is not the code on the computer. 4 tries left.");
    await page.locator("#code").fill(`${plain.slice(0, 4)} ${plain.slice(4)}`.toLowerCase().replaceAll("0", "o").replaceAll("1", "l"));
    await pair.tap();
    await page.waitForURL(`https://${server.https}/`, WAIT);
    secrets.push(await token(page));
    const { devices } = await server.call("GET", "/api/devices");
    assert.ok(devices.some(({ name, platform }) => name === "iPhone" && platform === "iPhone"));
    await context.close();
  });
});

describe("a server that is gone", () => {
  it("is said to be gone", async () => {
    const { context, page } = await paired();
    await page.goto(`https://${server.https}/`);
    await seen(page, "Nothing here yet");
    await context.setOffline(true);
    await page.getByText("Play the sample film").tap();
    await seen(page, "Studio does not answer.");
    await context.close();
  });
});

describe("the window", () => {
  let house, window, page, context;
  before(async () => {
    const { app } = JSON.parse(await readFile(fileURLToPath(new URL("../../tauri.conf.json", import.meta.url)), "utf8"));
    const policy = Object.entries(app.security.csp).map(([name, sources]) => `${name} ${sources}`).join("; ");
    window = await shelf.serve({ "/window/": fileURLToPath(new URL("../../ui/dist/", import.meta.url)) }, { "content-security-policy": policy });
    const place = join(folder, "house");
    await mkdir(place);
    house = await balcony.start(place, { bind: LAN, more: ["--name", "Studio", "--cors-origin", window.base] });
    ends.push(() => window.end(), () => house.end());
    context = await phone(stranger, { viewport: { width: 1080, height: 720 }, userAgent: undefined, isMobile: false, hasTouch: false });
    await context.addInitScript((told) => { globalThis.__BALCONY__ = told; }, { server: house.http, token: house.token });
    page = await context.newPage();
    await page.goto(`${window.base}/window/index.html`);
  });
  after(() => context?.close());

  const code = () => page.locator(".keycode [aria-hidden]");
  const shown = async () => (await code().textContent()).replace(/\s/g, "");

  it("shows a code at first", async () => {
    await code().filter({ hasText: /^\s*[0-9A-HJKMNP-TV-Z]{4}\s[0-9A-HJKMNP-TV-Z]{4}\s*$/ }).waitFor(WAIT);
    const { fingerprint } = await house.call("GET", "/api/health");
    const hex = Buffer.from(fingerprint, "base64url").toString("hex").toUpperCase();
    assert.ok((await page.locator("main").innerText()).replace(/\s/g, "").includes(hex), "the fingerprint stands beside it");
    await seen(page, /New code in [12]:\d\d/);
  });

  it("says who came in, and lets the owner revoke it", async () => {
    const used = await shown();
    const body = JSON.stringify({ code: used, deviceName: "Pixel 8", platform: "Android phone" });
    const answer = await fetch(`http://${house.http}/api/pair`, { method: "POST", headers: { "content-type": "application/json" }, body });
    assert.equal(answer.status, 201);
    const { token } = await answer.json();
    secrets.push(token);
    await seen(page, "Pixel 8 was paired just now.");
    await page.getByRole("navigation").getByText("Devices").click();
    await page.getByRole("main").getByRole("button", { name: "Revoke Pixel 8" }).last().click();
    await seen(page, "Revoke Pixel 8?");
    assert.equal(await page.evaluate(() => document.activeElement.textContent.trim()), "Keep");
    await page.getByRole("alertdialog").getByRole("button", { name: "Revoke" }).click();
    await page.getByRole("button", { name: "Revoke Pixel 8" }).first().waitFor({ state: "detached", ...WAIT });
    const me = await fetch(`http://${house.http}/api/devices/me`, { headers: { authorization: `Bearer ${token}` } });
    assert.equal(me.status, 401);
  });

  it("says that the server is gone, and when it looks again", async () => {
    await house.end();
    await seen(page, /Studio does not answer. Trying again in \d+ s/);
  });
});

describe("the user's own certificate", () => {
  it("needs no steps: the page goes straight on, and there is nothing to install", async () => {
    const place = join(folder, "own");
    await mkdir(place);
    const [cert, key] = ["cert.pem", "key.pem"].map((name) => join(place, name));
    const subject = ["-subj", "/CN=films", "-addext", `subjectAltName=IP:${LAN},DNS:films.example.org`];
    await command("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-keyout", key, "-out", cert, ...subject]);
    const own = await balcony.start(place, { bind: LAN, more: ["--tls-cert", cert, "--tls-key", key] });
    ends.push(() => own.end());
    const base = `http://${LAN}:${own.http.split(":").pop()}`;
    const answer = await fetch(`${base}/p`, { redirect: "manual" });
    assert.equal(answer.status, 307);
    assert.equal(answer.headers.get("location"), `https://${own.https}/pair`);
    for (const path of ["/ca.crt", "/ca.pem", "/ca.mobileconfig"]) assert.equal((await fetch(base + path)).status, 404, path);
  });
});

describe("what must not be seen", () => {
  it("stands in no address and in no log", async () => {
    assert.ok(secrets.length > 8 && secrets.every((secret) => secret?.length >= 8), "there is something to look for");
    assert.ok(asked.length > 20);
    for (const secret of secrets) {
      // Only the address bar has the fragment; the addresses that are asked for end before it.
      const leaks = asked.filter((url) => url.split("#")[0].includes(secret));
      assert.deepEqual(leaks, []);
    }
    const logs = join(folder, "data", "logs");
    const kept = await Promise.all((await readdir(logs)).map((name) => readFile(join(logs, name), "utf8")));
    assert.ok(kept.some((log) => log.includes("/api/pair")), "the log tells of pairing");
    for (const log of [...kept, server.log()]) for (const secret of secrets) assert.ok(!log.includes(secret), "a secret stands in the log");
  });

  it("no page broke its own policy", () => assert.deepEqual(violations, []));
});
