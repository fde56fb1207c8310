// A script with styles is offered twice in the player of the pages: as text over the picture, and drawn into it as it was made. The
// second is chosen, and seen in the picture.
//
// SERVER_UNDER_TEST names the server's program; PAGES_UNDER_TEST may name a folder of built pages (see pages.js).

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, it } from "node:test";

import * as balcony from "./balcony.js";
import * as browsers from "./chromium.js";
import { run } from "./film.js";
import { faults, look } from "./look.js";
import { device } from "./pages.js";
import { seed } from "./swarm.js";

const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, locale: "en-GB" };
/** A block of red in the upper left corner, for as long as the film lasts; nothing that text over a picture could be. */
const SCRIPT = `[Script Info]
ScriptType: v4.00+
PlayResX: 640
PlayResY: 360

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Sign,DejaVu Sans,40,&H000000FF,&H000000FF,&H000000FF,&H00000000,0,0,0,0,100,100,0,0,1,0,0,7,0,0,0,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:00.00,0:01:00.00,Sign,,0,0,0,,{\\pos(0,0)\\p1}m 0 0 l 160 0 160 90 0 90{\\p0}
Dialogue: 0,0:00:00.00,0:01:00.00,Sign,,0,0,0,,{\\an2}A sign
`;

const ends = [];
let server, page, said, stream;

before(async () => {
  const folder = await mkdtemp(join(tmpdir(), "balcony-drawn-"));
  ends.push(() => rm(folder, { recursive: true, force: true }));
  const [film, script] = [join(folder, "film.mkv"), join(folder, "script.ass")];
  await writeFile(script, SCRIPT);
  await run("ffmpeg", [
    "-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", "color=c=0x202060:s=640x360:r=24:d=60", "-f", "lavfi", "-i", "sine=f=440:r=48000:d=60", "-i", script,
    "-c:v", "libx264", "-preset", "veryfast", "-g", "48", "-c:a", "aac", "-c:s", "ass", "-metadata:s:s:0", "language=eng", film,
  ]);
  const seeder = await seed(film, `${film}.torrent`);
  ends.push(() => seeder.end());
  server = await balcony.start(folder);
  ends.push(() => server.end());
  const browser = await browsers.open();
  ends.push(() => browser.close());
  const opened = await device(browser, server, PHONE);
  said = opened.said;
  stream = await server.stream({ magnetLink: seeder.magnet });
  page = await opened.context.newPage();
}, { timeout: 120_000 });

after(async () => {
  for (const end of ends.reverse()) await end();
});

/** How red, green and blue the upper left corner of the picture is. */
const corner = () =>
  page.evaluate(() => {
    const drawing = new OffscreenCanvas(64, 36).getContext("2d", { willReadFrequently: true });
    drawing.drawImage(document.querySelector("video"), 0, 0, 64, 36);
    return [...drawing.getImageData(4, 3, 1, 1).data].slice(0, 3);
  });

async function openSheet() {
  await page.mouse.move(195, 200);
  await page.mouse.move(195, 210);
  await page.getByRole("button", { name: /^Subtitles: / }).click();
}

it("is drawn into the picture for who chooses that, and goes again", async () => {
  await page.goto(`http://${server.http}/#/stream/${stream.streamId}`);
  await page.waitForFunction(() => document.querySelector("video")?.currentTime > 1, undefined, { timeout: 20_000 });
  const [, , blue] = await corner();
  assert.ok(blue > 60, "nothing is drawn yet");

  await openSheet();
  const choice = page.getByRole("dialog").getByRole("button", { name: "Drawn into the picture, as they were made" });
  await choice.waitFor();
  await look(page, "player-scripts");
  await choice.click();
  await page.waitForFunction(() => {
    const video = document.querySelector("video");
    const drawing = new OffscreenCanvas(64, 36).getContext("2d", { willReadFrequently: true });
    drawing.drawImage(video, 0, 0, 64, 36);
    const [red, , blue] = drawing.getImageData(4, 3, 1, 1).data;
    return red > 180 && blue < 80 && !video.seeking;
  }, undefined, { timeout: 60_000, polling: 200 }).catch(async () => assert.fail(`it is not drawn: ${await corner()}\n${server.log().slice(-2000)}`));
  const { streams } = await server.call("GET", "/api/streams");
  assert.ok(streams.some(({ burn, status }) => burn === "s1" && status === "ready"), JSON.stringify(streams));
  await openSheet();
  await look(page, "player-scripts-drawn");

  await page.getByRole("dialog").getByRole("button", { name: "No subtitles" }).click();
  await page.waitForFunction(() => {
    const drawing = new OffscreenCanvas(64, 36).getContext("2d", { willReadFrequently: true });
    drawing.drawImage(document.querySelector("video"), 0, 0, 64, 36);
    const [red, , blue] = drawing.getImageData(4, 3, 1, 1).data;
    return red < 80 && blue > 60;
  }, undefined, { timeout: 60_000, polling: 200 });
  assert.deepEqual([said, faults], [[], []]);
});
