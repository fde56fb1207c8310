// A browser changes the size of the picture while it plays, down and up again, and goes on without a stop: each picture still carries the
// second that it belongs to.
//
// SERVER_UNDER_TEST names the server's program.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import * as balcony from "./balcony.js";
import * as browsers from "./chromium.js";
import { CELLS, makeFilm } from "./film.js";
import * as shelf from "./shelf.js";
import { seed } from "./swarm.js";

const SECONDS = 120;
/** A stop shorter than this is none that anybody sees. */
const STOP = 0.5;

const ends = [];
let browser, site, server, stream;

before(async () => {
  const folder = await mkdtemp(join(tmpdir(), "balcony-ladder-"));
  ends.push(() => rm(folder, { recursive: true, force: true }));
  const film = join(folder, "film.mp4");
  await makeFilm(film, SECONDS, 2);
  site = await shelf.serve();
  ends.push(() => site.end());
  const seeder = await seed(film, join(folder, "film.torrent"));
  ends.push(() => seeder.end());
  server = await balcony.start(folder);
  ends.push(() => server.end());
  stream = await server.stream({ magnetLink: seeder.magnet });
  browser = await browsers.open();
  ends.push(() => browser.close());
}, { timeout: 180_000 });

after(async () => {
  for (const end of ends.reverse()) await end();
});

// video.js shows another picture only behind all that it has fetched ahead, which here is most of the film.
for (const player of ["hls.js"]) {
  describe(player, () => {
    it("changes down and up without a stop", async (test) => {
      const page = await browser.newPage({ viewport: { width: 1280, height: 720 } });
      await page.goto(`${site.base}/page/player.html?${new URLSearchParams({ player, url: stream.streamUrl })}`);
      await page.waitForFunction(() => window.film);
      await page.evaluate(() => window.film.ready);
      await page.evaluate(() => window.film.play());
      await page.waitForFunction(() => window.film.state.time > 1 && window.film.heights().length > 1, undefined, { timeout: 20_000 });
      const offered = await page.evaluate(() => window.film.heights());
      assert.deepEqual([...offered].sort((a, b) => b - a), [720, 480, 360]);
      // What stands still longer than a picture and a look is noted.
      await page.evaluate(() => {
        let [time, since] = [window.film.state.time, performance.now()];
        window.longest = 0;
        setInterval(() => {
          const { time: now } = window.film.state;
          if (now > time) [time, since] = [now, performance.now()];
          window.longest = Math.max(window.longest, (performance.now() - since) / 1000);
        }, 40);
      });
      for (const height of [360, 720, 480, 720]) {
        await page.evaluate((height) => window.film.choose(height), height);
        try {
          await page.waitForFunction((height) => window.film.height === height, height, { timeout: 40_000 });
        } catch {
          assert.fail(`the picture does not become ${height} high: ${JSON.stringify(await page.evaluate(() => [window.film.height, window.film.state]))}\n${server.log().slice(-2000)}`);
        }
        const { time, counter } = await page.evaluate((cells) => window.film.picture(cells), CELLS);
        assert.equal(counter, Math.floor(time + 0.001), `the picture at ${time} s is of second ${counter}`);
      }
      const [longest, { errors }] = await page.evaluate(() => [window.longest, window.film.state]);
      assert.deepEqual(errors, []);
      // A machine that others keep busy encodes as fast as they let it, which tells nothing.
      const busy = loadavg()[0] > 2 * availableParallelism();
      if (busy) test.diagnostic(`this machine is busy; the film stood still for ${longest} s at most`);
      else assert.ok(longest < STOP, `the film stood still for ${longest} s`);
      await page.close();
    });
  });
}
