// The packages for Linux, as a distribution handles them: what they say and hold; and the deb installed, opened with a magnet link from
// its desktop entry, used, and purged.
//
// BUNDLES_UNDER_TEST names the folder that scripts/bundle has filled. Installing needs root, or sudo without a password in CI.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { access, mkdtemp, readFile, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";

import { makeFilm } from "../phone/film.js";
import { seed } from "../phone/swarm.js";
import { eventually, open } from "./stage.js";

const ROOT = new URL("../../", import.meta.url);
const ENTRY = "/usr/share/applications/Balcony.desktop";
const METAINFO = "/usr/share/metainfo/app.balcony.desktop.metainfo.xml";
const ICONS = ["16x16", "24x24", "32x32", "48x48", "64x64", "128x128", "256x256", "512x512"];
const HELD = ["/usr/bin/balcony", ENTRY, METAINFO, "/usr/share/icons/hicolor/scalable/apps/balcony.svg",
  ...ICONS.map((size) => `/usr/share/icons/hicolor/${size}/apps/balcony.png`)];
const DPKG_WAITS = 120_000;

const execute = promisify(execFile);

async function run(program, ...args) {
  const { stdout } = await execute(program, args, { maxBuffer: 16 << 20, env: { ...process.env, LC_ALL: "C" } });
  return stdout;
}

const is = (path) => access(path).then(() => true, () => false);

async function bundle(kind) {
  const folder = join(process.env.BUNDLES_UNDER_TEST ?? "", kind);
  const files = (await readdir(folder)).filter((name) => name.endsWith(`.${kind}`));
  assert.equal(files.length, 1, `one ${kind} in ${folder}`);
  return join(folder, files[0]);
}

async function version() {
  return /^version = "(.*)"$/m.exec((await readFile(new URL("Cargo.toml", ROOT), "utf8")).split("[workspace.package]")[1])[1];
}

describe("the deb", () => {
  let deb, folder;

  before(async () => {
    deb = await bundle("deb");
    folder = await mkdtemp(join(tmpdir(), "balcony-deb-"));
    await run("dpkg-deb", "--extract", deb, folder);
  });

  after(() => rm(folder, { recursive: true, force: true }));

  it("says what it is and what it needs", async () => {
    const field = async (name) => (await run("dpkg-deb", "--field", deb, name)).trim();
    assert.equal(await field("Package"), "balcony");
    assert.equal(await field("Version"), await version());
    assert.equal(await field("Section"), "video");
    assert.equal(await field("Maintainer"), "The Balcony authors");
    assert.match(await field("Description"), /^Films from your computer on your phone\n Your computer fetches a film[^\n]{0,60}\n /);
    const needs = (await field("Depends")).split(", ");
    for (const name of ["ffmpeg", "gstreamer1.0-plugins-good", "gstreamer1.0-libav", "libwebkit2gtk-4.1-0", "libgtk-3-0", "libayatana-appindicator3-1"]) {
      assert.ok(needs.includes(name), `${name} in ${needs}`);
    }
  });

  it("holds the program, its entry, its icons and its licence", async () => {
    for (const path of [...HELD, "/usr/share/doc/balcony/copyright", "/usr/share/doc/balcony/examples/balcony-server.service"]) assert.ok(await is(join(folder, path)), path);
    assert.ok((await stat(join(folder, "usr/bin/balcony"))).mode & 0o111, "the program may be run");
    const strange = (await run("dpkg-deb", "--contents", deb)).split("\n").filter((line) => line && !/ (\.\/)?(usr\/?(bin\b|share\b|$)|$)/.test(line));
    assert.deepEqual(strange, [], "nothing lies elsewhere");
  });

  it("has a desktop entry and a description that the desktops' own tools take", async () => {
    assert.equal(await run("desktop-file-validate", join(folder, ENTRY)), "");
    const entry = await readFile(join(folder, ENTRY), "utf8");
    for (const line of ["Exec=balcony %u", "Icon=balcony", "MimeType=x-scheme-handler/magnet;application/x-bittorrent;"]) {
      assert.ok(entry.split("\n").includes(line), `${line} in ${entry}`);
    }
    await run("appstreamcli", "validate", "--no-net", join(folder, METAINFO));
    assert.ok((await readFile(join(folder, METAINFO), "utf8")).includes(`>${basename(ENTRY)}</launchable>`), "the description leads to the entry");
  });
});

describe("the rpm", () => {
  it("says and holds the same", async () => {
    const rpm = await bundle("rpm");
    const ask = (...args) => run("rpm", "--query", "--package", ...args, rpm);
    assert.equal(await ask("--queryformat", "%{NAME} %{VERSION} %{LICENSE} %{SUMMARY}"), `balcony ${await version()} Apache-2.0 OR MIT Films from your computer on your phone`);
    const files = (await ask("--list")).trim().split("\n");
    for (const path of [...HELD, "/usr/share/licenses/balcony/LICENSE"]) assert.ok(files.includes(path), `${path} in ${files}`);
    assert.deepEqual(files.filter((path) => !/^\/usr\/(bin|share)\//.test(path)), [], "nothing lies elsewhere");
    const needs = (await ask("--requires")).trim().split("\n");
    for (const name of ["/usr/bin/ffmpeg", "/usr/bin/ffprobe", "gstreamer1-plugins-good"]) assert.ok(needs.includes(name), `${name} in ${needs}`);
    // Where its entry is named, its description is too: the checks of the deb hold for both.
    const folder = await mkdtemp(join(tmpdir(), "balcony-rpm-"));
    try {
      await run("sh", "-c", `cd "${folder}" && rpm2cpio "${rpm}" | cpio --quiet -id ".${ENTRY}"`);
      assert.match(await readFile(join(folder, ENTRY), "utf8"), /^Exec=balcony %u$/m);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});

/** How to become root, or why that is not to be. */
async function rootly() {
  if (process.getuid() === 0) return { prefix: [] };
  if (!process.env.CI) return { why: "installing a package needs root" };
  return run("sudo", "-n", "true").then(() => ({ prefix: ["sudo", "-n"] }), () => ({ why: "sudo wants a password" }));
}

describe("the deb, installed", async () => {
  const root = await rootly();
  const dpkg = (...args) => eventually("dpkg", async () => {
    const [program, ...rest] = [...(root.prefix ?? []), "dpkg", ...args];
    try {
      return { said: await run(program, ...rest) };
    } catch (error) {
      // Somebody else is installing something.
      if (/lock/.test(error.stderr)) return undefined;
      return { failed: error };
    }
  }, DPKG_WAITS).then(({ said, failed }) => { if (failed) throw failed; return said; });
  const ends = [];
  let stage, magnet;

  before(async () => {
    if (root.why) return;
    assert.ok(!(await is("/usr/bin/balcony")), "a Balcony is installed here already: its owner would miss it");
    stage = await open();
    ends.push(() => stage.end());
    const film = join(stage.folder, "film.mp4");
    await makeFilm(film, 20);
    const seeder = await seed(film, join(stage.folder, "film.torrent"));
    ends.push(() => seeder.end());
    magnet = seeder.magnet;
    ends.push(() => dpkg("--purge", "balcony"));
    await dpkg("--install", await bundle("deb"));
  }, { timeout: 300_000 });

  after(async () => {
    for (const end of ends.reverse()) await end();
  });

  it("opens a magnet link, streams it, and leaves nothing but the user's data", { skip: root.why, timeout: 180_000 }, async () => {
    // Only what an entry's own line leaves open can be told by the environment.
    const env = { BALCONY_BIND: "127.0.0.1", BALCONY_HTTP_PORT: "0", BALCONY_HTTPS_PORT: "0", BALCONY_NO_DHT: "true", BALCONY_NO_MDNS: "true",
      BALCONY_ALLOW_PRIVATE_PEERS: "true", BALCONY_RESERVE_BYTES: "0" };
    assert.match(await stage.run("gio", ["mime", "x-scheme-handler/magnet"]), /Balcony\.desktop/);
    assert.match(await stage.run("gio", ["mime", "application/x-bittorrent"]), /Balcony\.desktop/);
    await stage.run("gio", ["open", magnet], { env });

    const data = join(stage.env.XDG_DATA_HOME, "balcony");
    const told = await eventually("the server", async () => JSON.parse(await readFile(join(data, "run.json"), "utf8")));
    assert.equal(await run("readlink", `/proc/${told.pid}/exe`), "/usr/bin/balcony\n");
    const token = (await readFile(told.adminTokenFile, "utf8")).trim();
    const ask = async (path) => (await fetch(`http://${told.http}${path}`, { headers: { authorization: `Bearer ${token}` } })).json();
    assert.equal((await ask("/api/health")).version, await version());

    const stream = await eventually("the stream", async () => {
      const [stream] = (await ask("/api/streams")).streams;
      assert.ok(stream?.status !== "error", JSON.stringify(stream));
      return stream?.status === "ready" && stream;
    }, 60_000);
    const playlist = await fetch(stream.streamUrl);
    assert.equal(playlist.status, 200);
    assert.match(await playlist.text(), /^#EXTM3U/);

    await stage.tray();
    await stage.screenshot("deb-installed");

    // A second click on the icon brings the window of the first.
    await stage.run("gio", ["launch", ENTRY], { env });
    await eventually("the window", async () => (await stage.windows()).some(({ pid }) => pid === told.pid));

    process.kill(told.pid, "SIGTERM");
    await eventually("its end", async () => !(await is(`/proc/${told.pid}`)));
    assert.deepEqual((await stage.processes()).filter(({ command }) => /balcony |ffmpeg|WebKit/.test(`${command} `)), [], "no child is left");

    await dpkg("--purge", "balcony");
    for (const path of HELD) assert.ok(!(await is(path)), `${path} is gone`);
    assert.equal(await run("find", "/usr", "/etc", "/opt", "/var/lib", "-xdev", "-iname", "*balcony*", "-not", "-path", "*/node_modules/*"), "");
    assert.ok(await is(told.adminTokenFile), "what is the user's stays");
  });
});
