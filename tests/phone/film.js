// A film that tells its own time: the second that a picture belongs to is painted into its upper edge, as white and black
// cells. So a player that shows the wrong place is found out by looking at the picture. Made by ffmpeg, nothing else.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { rm, writeFile } from "node:fs/promises";
import { extname } from "node:path";

export const CELLS = 8;
const WIDTH = 640;
const HEIGHT = 360;
const CELL = WIDTH / CELLS;

/** Runs a program to its end; rejects with what it said when it fails. */
export async function run(program, args) {
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr.on("data", (bytes) => (said += bytes));
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`${program} ended with ${code}: ${said.slice(-2000)}`);
}

function counter(scale) {
  const band = `drawbox=x=0:y=0:w=${WIDTH * scale}:h=${48 * scale}:color=black:t=fill`;
  const cells = Array.from({ length: CELLS }, (_, bit) => {
    const x = ((CELLS - 1 - bit) * CELL + 8) * scale;
    return `drawbox=x=${x}:y=${8 * scale}:w=${(CELL - 16) * scale}:h=${32 * scale}:color=white:t=fill:enable='bitand(floor(t+0.001),${1 << bit})'`;
  });
  return [band, ...cells].join(",");
}

/** How the films are made that a path's ending stands for. */
const KINDS = {
  mp4: ["-c:v", "libx264", "-preset", "veryfast", "-b:v", "1500k", "-bf", "2", "-c:a", "aac", "-ac", "2", "-b:a", "128k"],
  // Surround sound that no browser plays, and cues; a picture that few do.
  mkv: ["-c:v", "libx265", "-preset", "ultrafast", "-b:v", "1500k", "-x265-params", "log-level=none:open-gop=1", "-c:a", "ac3", "-ac", "6", "-c:s", "srt"],
  // No index: what is where is only found by looking.
  ts: ["-c:v", "mpeg2video", "-b:v", "4M", "-bf", "2", "-c:a", "mp2", "-ac", "2", "-output_ts_offset", "4242"],
  webm: ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-row-mt", "1", "-b:v", "1500k", "-c:a", "libopus", "-ac", "2"],
};

/** Cues of a second each, every other second. */
async function makeCues(path, seconds) {
  const time = (second) => `00:${String(Math.floor(second / 60)).padStart(2, "0")}:${String(second % 60).padStart(2, "0")},000`;
  const cues = Array.from({ length: Math.floor(seconds / 2) }, (_, at) => `${at + 1}\n${time(2 * at)} --> ${time(2 * at + 1)}\nsecond ${2 * at}\n`);
  await writeFile(path, cues.join("\n"));
}

/**
 * Makes a film whose key frames are not evenly spaced, of the kind that the ending of its name says. Seconds; at most 255. `scale` makes its
 * picture larger.
 */
export async function makeFilm(path, seconds, scale = 1) {
  const kind = extname(path).slice(1);
  const cues = kind === "mkv" ? [`${path}.srt`] : [];
  for (const file of cues) await makeCues(file, seconds);
  const picture = `testsrc2=s=${WIDTH * scale}x${HEIGHT * scale}:r=24:d=${seconds},${counter(scale)},format=yuv420p`;
  await run("ffmpeg", [
    "-nostdin", "-v", "error", "-y",
    "-f", "lavfi", "-i", picture,
    "-f", "lavfi", "-i", `sine=f=440:r=48000:d=${seconds}`,
    ...cues.flatMap((file) => ["-i", file]),
    ...KINDS[kind],
    "-force_key_frames", "expr:eq(mod(t,7.5),0)+eq(mod(t,5),0)", "-g", kind === "ts" ? "60" : "1000", "-sc_threshold", "0",
    "-t", String(seconds), path,
  ]);
  for (const file of cues) await rm(file);
}

/** Cuts a film into HLS by ffmpeg alone: what the suite itself is checked against. */
export async function makeStaticHls(film, folder) {
  await run("ffmpeg", [
    "-nostdin", "-v", "error", "-y", "-i", film, "-map", "0:v", "-map", "0:a", "-c", "copy",
    "-f", "hls", "-hls_time", "4", "-hls_playlist_type", "vod", "-hls_segment_type", "fmp4",
    "-var_stream_map", "v:0,agroup:sound a:0,agroup:sound,default:yes", "-master_pl_name", "master.m3u8",
    "-hls_fmp4_init_filename", "init_%v.mp4", "-hls_segment_filename", `${folder}/s%v_%d.m4s`, `${folder}/p%v.m3u8`,
  ]);
}
