// The nouns of the API under short names.

import type { Answer } from "./api.js";
import type { StreamExtras } from "./interim.js";
import type { components } from "./schema.js";

type Schemas = components["schemas"];

/** What start, status and events answer. Fields that are not there are not known yet. */
export type Stream = Omit<Schemas["StreamView"], "messageParams" | "fetched" | keyof StreamExtras> &
  StreamExtras & {
    /** Spans of the film that are here, from and to, in seconds. */
    fetched?: [from: number, to: number][] | null;
    /** What stands in the message. */
    messageParams: Record<string, string | number>;
  };
/** The five public words. */
export type Status = Schemas["Status"];
export type Phase = Schemas["Phase"];
export type Device = Schemas["Device"];
export type Person = Schemas["Person"];
export type Health = Schemas["HealthView"];
export type Paired = Schemas["PairedView"];
export type Offer = Schemas["OfferView"];
export type OfferStanding = Schemas["StandingView"];
export type Settings = Schemas["SettingsView"];
export type Setting = Schemas["SettingView"];
export type SettingsChange = Schemas["SettingsChange"];
export type Inspected = Schemas["Inspected"];
export type InspectedFile = Schemas["InspectedFile"];
export type Sample = Schemas["SampleView"];
export type AudioTrack = Schemas["AudioView"];
export type VideoTrack = Schemas["VideoView"];
/** Addresses of the subtitles by language, and all tracks. */
export type Subtitles = Schemas["SubtitleList"];
export type SubtitleTrack = Schemas["SubtitleTrack"];
/** What the server is doing, in a few figures. */
export type Overview = Schemas["Overview"];
export type Certificate = Schemas["CertificateView"];
/** The magnet link of a torrent file. */
export type TorrentMagnet = Answer<"post", "/api/torrents/magnet">;
/** What this person has watched. */
export type Film = Schemas["WatchedFilm"];
export type Notice = Schemas["Notice"];
/** What the server found when it looked at itself. */
export type Doctor = Schemas["Doctor"];
export type Finding = Schemas["Finding"];
export type Stopped = Schemas["Stopped"];

/** What happened to a device; only the owner is told. */
export type DeviceEvent = { change: "paired" | "changed"; device: Device } | { change: "revoked"; deviceId: string };

/** What the caller can play. Without it H.264 (8 bit) and AAC are assumed. */
export interface Capabilities {
  video?: ("h264" | "hevc" | "av1" | "vp9")[];
  audio?: ("aac" | "ac3" | "eac3" | "opus" | "flac" | "mp3" | "alac")[];
  /** Rows of the picture. */
  maxHeight?: number;
  hdr?: boolean;
}

export type Quality = "auto" | "source" | "2160p" | "1440p" | "1080p" | "720p" | "480p" | "360p";

export interface StartOptions {
  /** A cap, never an upscale; `auto` without it. */
  quality?: Quality | undefined;
  /** The file of a pack; the largest film without it. */
  fileIndex?: number | undefined;
  /** Which address `streamUrl` is. */
  method?: "auto" | "hls" | "dash" | "original" | undefined;
  capabilities?: Capabilities | undefined;
  /** Id of a subtitle track to burn into the picture. */
  burn?: string | undefined;
}

/** Whether a stream will not change any more. */
export function isOver(stream: Pick<Stream, "status">): boolean {
  return stream.status === "error" || stream.status === "stopped";
}
