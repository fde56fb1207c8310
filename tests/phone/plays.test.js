// Players of several makes play in a browser what the server streams: from the beginning, after a jump to the middle, after a jump near
// the end, to the end. One film goes through all of it in each of them; films of other kinds are begun, jumped in and ended.
//
// SERVER_UNDER_TEST names the server's program. With WITHOUT_SERVER=1 the same film is cut by ffmpeg instead, with no server at all:
// that checks the suite, not Balcony.

import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import * as balcony from "./balcony.js";
import * as browsers from "./chromium.js";
import { CELLS, makeFilm, makeStaticHls } from "./film.js";
import * as shelf from "./shelf.js";
import { seed } from "./swarm.js";

const SECONDS = 90;
const PLAYERS = ["hls.js", "video.js", "video.js by DASH", "Shaka", "Shaka by DASH", "dash.js"];
const byDash = (player) => /DASH|dash/.test(player);

/** Films of other kinds, what the client says that it plays, and what becomes of them. */
const OTHERS = {
  "film.mkv": { mode: "convert", texts: 1 },
  "film.ts": { mode: "convert" },
  "film.webm": { capabilities: { video: ["h264", "vp9"], audio: ["aac", "opus"] }, mode: "copy" },
};
const OTHERS_LAST = 40;

const ends = [];
let browser, site, server, folder;
/** The addresses of a film's streams, by its file's name. */
const urls = {};

async function staticStream(folder, film) {
  const hls = join(folder, "hls");
  await mkdir(hls);
  await makeStaticHls(film, hls);
  site = await shelf.serve({ "/hls/": hls });
  ends.push(() => site.end());
  urls["film.mp4"] = { streamUrl: `${site.base}/hls/master.m3u8` };
}

async function startServer() {
  site = await shelf.serve();
  ends.push(() => site.end());
  server = await balcony.start(folder);
  ends.push(() => server.end());
}

/** Makes a film, seeds it, and streams it. */
async function stream(name, seconds, { capabilities, mode }) {
  const film = join(folder, name);
  await makeFilm(film, seconds);
  const seeder = await seed(film, `${film}.torrent`);
  ends.push(() => seeder.end());
  const stream = await server.stream({ magnetLink: seeder.magnet, capabilities });
  assert.equal(stream.mode, mode, stream.why);
  urls[name] = stream;
}

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "balcony-phone-"));
  ends.push(() => rm(folder, { recursive: true, force: true }));
  if (process.env.WITHOUT_SERVER) {
    const film = join(folder, "film.mp4");
    await makeFilm(film, SECONDS);
    await staticStream(folder, film);
  } else {
    await startServer();
    await stream("film.mp4", SECONDS, { mode: "copy" });
  }
  browser = await browsers.open();
  ends.push(() => browser.close());
}, { timeout: 180_000 });

after(async () => {
  for (const end of ends.reverse()) await end();
});

/** A page with a player on it that has loaded a film, and what the test asks of it. */
async function open(player, name) {
  const page = await browser.newPage({ viewport: { width: 640, height: 360 } });
  const { streamUrl, dashUrl } = urls[name];
  await page.goto(`${site.base}/page/player.html?${new URLSearchParams({ player, url: byDash(player) ? dashUrl : streamUrl })}`);
  await page.waitForFunction(() => window.film);
  await page.evaluate(() => window.film.ready);
  const state = () => page.evaluate(() => window.film.state);
  return {
    page,
    state,
    /** Waits until the film stands at a time or behind it. */
    async reaches(time) {
      try {
        await page.waitForFunction((time) => window.film.errors.length > 0 || (!window.film.state.seeking && window.film.state.time >= time), time, { timeout: 20_000 });
      } catch {
        assert.fail(`the film does not reach ${time} s: ${JSON.stringify(await state())}\n${server?.log() ?? ""}`);
      }
      assert.deepEqual((await state()).errors, []);
    },
    /** The picture that is shown carries the second at which the player says that it is. */
    async tellsTheTime() {
      const { time, counter } = await page.evaluate((cells) => window.film.picture(cells), CELLS);
      assert.equal(counter, Math.floor(time + 0.001), `the picture at ${time} s is of second ${counter}`);
    },
    async seek(time) {
      await page.evaluate((time) => window.film.seek(time), time);
    },
    /** Waits for the end. */
    async ends() {
      try {
        await page.waitForFunction(() => window.film.errors.length > 0 || window.film.state.ended, undefined, { timeout: 20_000 });
      } catch {
        assert.fail(`the film does not end: ${JSON.stringify(await state())}`);
      }
      assert.deepEqual((await state()).errors, []);
    },
  };
}

/** How light the lightest and the darkest of a screenshot are, 0-255. */
async function range(page) {
  const png = (await page.screenshot()).toString("base64");
  return page.evaluate(async (png) => {
    const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
    const drawing = new OffscreenCanvas(64, 36).getContext("2d");
    drawing.drawImage(image, 0, 0, 64, 36);
    const { data } = drawing.getImageData(0, 0, 64, 36);
    const light = Array.from({ length: 64 * 36 }, (_, at) => (data[at * 4] + data[at * 4 + 1] + data[at * 4 + 2]) / 3);
    return { darkest: Math.min(...light), lightest: Math.max(...light) };
  }, png);
}

for (const player of PLAYERS.filter((player) => !(process.env.WITHOUT_SERVER && byDash(player)))) {
  describe(player, () => {
    let film;
    before(async () => { film = await open(player, "film.mp4"); });
    after(() => film?.page.close());

    it("plays from the beginning", async () => {
      await film.page.evaluate(() => window.film.play());
      await film.reaches(2);
      await film.tellsTheTime();
      const { duration } = await film.state();
      assert.ok(Math.abs(duration - SECONDS) < 0.2, `the film is ${duration} s long`);
    });

    it("shows a picture", async () => {
      const { darkest, lightest } = await range(film.page);
      assert.ok(lightest - darkest > 100, `all of the screenshot is of one lightness (${darkest} to ${lightest})`);
    });

    for (const part of [0.5, 0.9]) {
      it(`jumps to ${part * 100} % and plays on`, async () => {
        const goal = SECONDS * part + 0.3;
        await film.seek(goal);
        await film.reaches(goal + 0.2);
        await film.tellsTheTime();
        await film.reaches(goal + 3);
        await film.tellsTheTime();
      });
    }

    it("jumps back to the beginning and plays on", async () => {
      await film.seek(10.3);
      await film.reaches(10.5);
      await film.tellsTheTime();
      await film.reaches(13);
    });

    it("plays to the end", async () => {
      await film.seek(SECONDS - 4);
      await film.reaches(SECONDS - 2);
      await film.ends();
    });
  });
}

for (const [name, wanted] of Object.entries(process.env.WITHOUT_SERVER ? {} : OTHERS)) {
  describe(name, () => {
    before(() => stream(name, OTHERS_LAST, wanted), { timeout: 120_000 });

    for (const player of ["hls.js", "video.js", "Shaka", "dash.js"]) {
      it(`plays in ${player}`, async () => {
        const film = await open(player, name);
        await film.page.evaluate(() => window.film.play());
        await film.reaches(2);
        await film.tellsTheTime();
        const { duration } = await film.state();
        assert.ok(Math.abs(duration - OTHERS_LAST) < 0.3, `the film is ${duration} s long`);
        await film.seek(OTHERS_LAST * 0.6 + 0.3);
        await film.reaches(OTHERS_LAST * 0.6 + 2);
        await film.tellsTheTime();
        // video.js keeps its own list of texts.
        if (!player.startsWith("video.js")) assert.equal(await film.page.evaluate(() => window.film.texts()), wanted.texts ?? 0, "tracks of text");
        await film.seek(OTHERS_LAST - 3);
        await film.reaches(OTHERS_LAST - 2);
        await film.ends();
        await film.page.close();
      });
    }
  });
}
