// A browser plays what the server streams: from the beginning, after a jump to the middle, after a jump near the end, to the end.
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
const PLAYERS = ["hls.js", "video.js"];

const ends = [];
let browser, site, streamUrl, server;

async function staticStream(folder, film) {
  const hls = join(folder, "hls");
  await mkdir(hls);
  await makeStaticHls(film, hls);
  site = await shelf.serve({ "/hls/": hls });
  ends.push(() => site.end());
  return `${site.base}/hls/master.m3u8`;
}

async function realStream(folder, film) {
  site = await shelf.serve();
  ends.push(() => site.end());
  const seeder = await seed(film, join(folder, "film.torrent"));
  ends.push(() => seeder.end());
  server = await balcony.start(folder);
  ends.push(() => server.end());
  const stream = await server.stream({ magnetLink: seeder.magnet });
  assert.equal(stream.mode, "copy", `H.264 and AAC are copied: ${stream.why}`);
  return stream.streamUrl;
}

before(async () => {
  const folder = await mkdtemp(join(tmpdir(), "balcony-phone-"));
  ends.push(() => rm(folder, { recursive: true, force: true }));
  const film = join(folder, "film.mp4");
  await makeFilm(film, SECONDS);
  streamUrl = await (process.env.WITHOUT_SERVER ? staticStream : realStream)(folder, film);
  browser = await browsers.open();
  ends.push(() => browser.close());
}, { timeout: 180_000 });

after(async () => {
  for (const end of ends.reverse()) await end();
});

/** A page with a player on it, and what the test asks of it. */
async function open(player) {
  const page = await browser.newPage({ viewport: { width: 640, height: 360 } });
  await page.goto(`${site.base}/page/player.html?${new URLSearchParams({ player, url: streamUrl })}`);
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

for (const player of PLAYERS) {
  describe(player, () => {
    let film;
    before(async () => { film = await open(player); });
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
      await film.page.waitForFunction(() => window.film.state.ended, undefined, { timeout: 20_000 });
      assert.deepEqual((await film.state()).errors, []);
    });
  });
}
