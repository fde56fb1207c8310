// What this browser can play, told to the server when a film is started: what it can play is copied, the rest is converted.
import type { Capabilities } from "@balcony/client";

const VIDEO = {
  h264: 'video/mp4; codecs="avc1.640028"',
  hevc: 'video/mp4; codecs="hvc1.1.6.L120.90"',
  av1: 'video/mp4; codecs="av01.0.08M.08"',
  vp9: 'video/mp4; codecs="vp09.00.40.08"',
} as const;
const AUDIO = {
  aac: 'audio/mp4; codecs="mp4a.40.2"',
  ac3: 'audio/mp4; codecs="ac-3"',
  eac3: 'audio/mp4; codecs="ec-3"',
  opus: 'audio/mp4; codecs="opus"',
  flac: 'audio/mp4; codecs="flac"',
} as const;

interface Source {
  isTypeSupported(type: string): boolean;
}

/** Reads them once; cheap. */
export function capabilities(): Capabilities {
  const source = (globalThis as { ManagedMediaSource?: Source }).ManagedMediaSource ?? (globalThis as { MediaSource?: Source }).MediaSource;
  const element = document.createElement("video");
  const plays = (type: string) => (source ? source.isTypeSupported(type) : element.canPlayType(type) === "probably");
  const those = <Name extends string>(types: Record<Name, string>) => (Object.keys(types) as Name[]).filter((name) => plays(types[name]));
  return { video: those(VIDEO), audio: those(AUDIO), hdr: matchMedia("(dynamic-range: high)").matches };
}
