// A film that tells its own time: the second that a picture belongs to is painted into its upper edge, as white and black
// cells. So a player that shows the wrong place is found out by looking at the picture. Made by ffmpeg, nothing else.

import { spawn } from "node:child_process";
import { once } from "node:events";

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

/** Makes a film of H.264 and AAC whose key frames are not evenly spaced. Seconds; at most 255. `scale` makes its picture larger. */
export async function makeFilm(path, seconds, scale = 1) {
  const picture = `testsrc2=s=${WIDTH * scale}x${HEIGHT * scale}:r=24:d=${seconds},${counter(scale)},format=yuv420p`;
  await run("ffmpeg", [
    "-nostdin", "-v", "error", "-y",
    "-f", "lavfi", "-i", picture,
    "-f", "lavfi", "-i", `sine=f=440:r=48000:d=${seconds}`,
    "-c:v", "libx264", "-preset", "veryfast", "-b:v", "1500k", "-bf", "2",
    "-force_key_frames", "expr:eq(mod(t,7.5),0)+eq(mod(t,5),0)", "-g", "1000", "-sc_threshold", "0",
    "-c:a", "aac", "-ac", "2", "-b:a", "128k", "-shortest", path,
  ]);
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
