// An encoder in silicon fails in the middle of a film, and a browser that plays it does not see it: x264 stands in at the same segment,
// each picture still carries the second that it belongs to, and nothing stops. The encoder is x264 in the clothes of Nvidia's.
//
// SERVER_UNDER_TEST names the server's program.

import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { availableParallelism, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";

import * as balcony from "./balcony.js";
import * as browsers from "./chromium.js";
import { CELLS, makeFilm } from "./film.js";
import * as shelf from "./shelf.js";
import { seed } from "./swarm.js";

const SECONDS = 60;
/** Pictures that the encoder makes of a film before it ends, as if all were well. */
const PICTURES = 24 * 9;
/** A stop shorter than this is none that anybody sees. */
const STOP = 0.5;

/** A program in place of ffmpeg: what it is told for Nvidia's encoder it does with x264. */
const CARD = `#!/bin/sh
case "$*" in *h264_nvenc*) ;; *) exec ffmpeg "$@";; esac
case "$*" in *http://*) pictures='-frames:v ${PICTURES}';; esac
n=$#
while [ $n -gt 0 ]; do
  word=$1; shift; n=$((n-1))
  case $word in
    h264_nvenc) set -- "$@" libx264 -sc_threshold 0 -crf 23 -pix_fmt yuv420p -x264-params cabac=0:ref=2;;
    -tune|-rc|-cq|-b:v|-no-scenecut|-rc-lookahead) shift; n=$((n-1));;
    -preset) set -- "$@" -preset superfast; shift; n=$((n-1));;
    -video_track_timescale) set -- "$@" $pictures -video_track_timescale;;
    *) set -- "$@" "$word";;
  esac
done
exec ffmpeg "$@"
`;

const ends = [];
let folder, browser, site, seeder, card;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "balcony-silicon-"));
  ends.push(() => rm(folder, { recursive: true, force: true }));
  const film = join(folder, "film.mp4");
  await makeFilm(film, SECONDS);
  card = join(folder, "ffmpeg");
  await writeFile(card, CARD);
  await chmod(card, 0o755);
  site = await shelf.serve();
  ends.push(() => site.end());
  seeder = await seed(film, join(folder, "film.torrent"));
  ends.push(() => seeder.end());
  browser = await browsers.open();
  ends.push(() => browser.close());
}, { timeout: 180_000 });

after(async () => {
  for (const end of ends.reverse()) await end();
});

/** What the server finds of its encoders. */
async function encoders(server) {
  const { findings } = await server.call("GET", "/api/doctor");
  return findings.find((finding) => finding.check === "encoders").messageKey;
}

for (const player of ["hls.js", "video.js"]) {
  describe(player, () => {
    it("plays on when the encoder is another one", { timeout: 240_000 }, async (test) => {
      // What has failed once is not used again before the next start.
      const server = await balcony.start(join(folder, player), { more: ["--ffmpeg", card, "--encoder", "nvenc"] });
      try {
        while ((await encoders(server)) !== "encoders_silicon") await new Promise((done) => setTimeout(done, 500));
        // A device without H.264 of its own: the picture is converted.
        const stream = await server.stream({ magnetLink: seeder.magnet, capabilities: { video: ["vp8"], audio: ["aac"] } });
        assert.equal(stream.mode, "convert");
        const page = await browser.newPage({ viewport: { width: 1280, height: 720 } });
        await page.goto(`${site.base}/page/player.html?${new URLSearchParams({ player, url: stream.streamUrl })}`);
        await page.waitForFunction(() => window.film);
        await page.evaluate(() => window.film.ready);
        await page.evaluate(() => window.film.play());
        await page.waitForFunction(() => window.film.state.time > 1, undefined, { timeout: 20_000 });
        await page.evaluate(() => {
          let [time, since] = [window.film.state.time, performance.now()];
          window.longest = 0;
          setInterval(() => {
            const { time: now } = window.film.state;
            if (now > time) [time, since] = [now, performance.now()];
            window.longest = Math.max(window.longest, (performance.now() - since) / 1000);
          }, 40);
        });
        let last = 0;
        while (last < 20) {
          const { time, counter } = await page.evaluate((cells) => window.film.picture(cells), CELLS);
          assert.equal(counter, Math.floor(time + 0.001), `the picture at ${time} s is of second ${counter}`);
          assert.ok(time >= last, `${time} after ${last}`);
          last = time;
        }
        const [longest, { errors }] = await page.evaluate(() => [window.longest, window.film.state]);
        assert.deepEqual(errors, []);
        assert.equal(await encoders(server), "encoders_distrusted");
        const busy = loadavg()[0] > 2 * availableParallelism();
        test.diagnostic(`the film stood still for ${longest} s at most${busy ? "; this machine is busy" : ""}`);
        if (!busy) assert.ok(longest < STOP, `the film stood still for ${longest} s`);
        await page.close();
      } finally {
        await server.end();
      }
    });
  });
}
