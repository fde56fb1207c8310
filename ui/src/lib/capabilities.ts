// What this browser can play, told to the server when a film is started: what it can play is copied, the rest is converted.
import type { Capabilities } from "@balcony/client";

// A codec is named only if all of its types can be played: the server tells HEVC and AV1 of eight and of ten bits by one name.
const VIDEO = {
  h264: ['video/mp4; codecs="avc1.640028"'],
  hevc: ['video/mp4; codecs="hvc1.1.6.L120.90"', 'video/mp4; codecs="hvc1.2.4.L120.90"'],
  av1: ['video/mp4; codecs="av01.0.08M.08"', 'video/mp4; codecs="av01.0.08M.10"'],
  vp9: ['video/mp4; codecs="vp09.00.40.08"'],
};
const AUDIO = {
  aac: ['audio/mp4; codecs="mp4a.40.2"'],
  ac3: ['audio/mp4; codecs="ac-3"'],
  eac3: ['audio/mp4; codecs="ec-3"'],
  opus: ['audio/mp4; codecs="opus"'],
  flac: ['audio/mp4; codecs="fLaC"'],
  mp3: ['audio/mp4; codecs="mp4a.6B"'],
  alac: ['audio/mp4; codecs="alac"'],
};

interface Source {
  isTypeSupported(type: string): boolean;
}

/** A film as most are, to ask whether decoding keeps up with it. */
const USUAL = { width: 1920, height: 1080, bitrate: 8_000_000, framerate: 24 };
/** A browser that does not answer by then is taken at its first word. Milliseconds. */
const PATIENCE = 500;

let found: Promise<Capabilities> | undefined;

/** Finds them once, with two questions: whether the browser knows a codec at all, and whether it decodes it without stumbling. */
export function capabilities(): Promise<Capabilities> {
  return (found ??= find());
}

async function find(): Promise<Capabilities> {
  const source = (globalThis as { ManagedMediaSource?: Source }).ManagedMediaSource ?? (globalThis as { MediaSource?: Source }).MediaSource;
  const element = document.createElement("video");
  const plays = (type: string) => (source ? source.isTypeSupported(type) : element.canPlayType(type) === "probably");
  const those = <Name extends string>(types: Record<Name, string[]>) => (Object.keys(types) as Name[]).filter((name) => types[name].every(plays));
  const video = those(VIDEO);
  const smooth = await Promise.all(video.map(async (name) => name === "h264" || (await keepsUp(VIDEO[name][0] ?? ""))));
  return { video: video.filter((_, at) => smooth[at]), audio: those(AUDIO), hdr: matchMedia("(dynamic-range: high)").matches };
}

/** Whether decoding in time can be expected. H.264 is not asked for: everything is converted to it. */
async function keepsUp(contentType: string): Promise<boolean> {
  const asked = navigator.mediaCapabilities?.decodingInfo({ type: "media-source", video: { contentType, ...USUAL } });
  const late = new Promise<undefined>((resolve) => setTimeout(resolve, PATIENCE, undefined));
  const told = await Promise.race([asked, late]).catch(() => undefined);
  return told?.smooth ?? true;
}
