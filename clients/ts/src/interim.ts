// Shapes of routes that the API document does not describe yet. Each goes when the document has it.

type Json<Body> = { content: { "application/json": Body } };
type Operation<Answer, Extra = Record<never, never>> = { parameters: Record<never, never>; responses: { 200: Json<Answer> } } & Extra;

/** What the server is doing, in a few figures. Bytes, and bytes per second. */
export interface Overview {
  state: "idle" | "active" | "trouble";
  paused: boolean;
  /** Streams that are not over. */
  streams: number;
  /** Devices that asked for media within the last minute. */
  watching: number;
  /** Streams that are neither ready nor queued. */
  preparing: number;
  downloadSpeed: number;
  uploadSpeed: number;
  usedBytes: number;
  budgetBytes: number;
  freeBytes: number;
  trouble?: { code: string; message: string; messageKey: string } | null;
}

export interface Certificate {
  kind: "own" | "files";
  fingerprint: string;
  fingerprintForPeople: string;
  authority?: string | null;
  names: string[];
  notBefore: string;
  notAfter: string;
}

export interface Finding {
  check: string;
  level: "good" | "note" | "broken";
  message: string;
  messageKey: string;
  messageParams?: Record<string, string | number>;
}

export interface Doctor {
  ok: boolean;
  version: string;
  findings: Finding[];
}

export interface TorrentMagnet {
  magnetLink: string;
  infoHash: string;
  name?: string | null;
  totalBytes: number;
}

export interface SubtitleTrack {
  id: string;
  format: string;
  kind: string;
  language: string;
  title: string;
  default: boolean;
  forced: boolean;
  external: boolean;
  /** WebVTT; needs no header. */
  url?: string | null;
}

export interface Subtitles {
  /** Address of the first text track by language. */
  subtitles: Record<string, string>;
  tracks: SubtitleTrack[];
}

/** What a stream's object gains. */
export interface StreamExtras {
  device?: { id: string; name: string } | null;
  /** Only the owner is told. */
  person?: { id: string; name: string } | null;
  /** Devices that asked for media within the last minute. */
  watching?: { id: string; name: string }[] | null;
  /** Seconds of the film that are here. */
  fetched?: [number, number][] | null;
  subtitles?: Omit<SubtitleTrack, "url">[] | null;
  dashUrl?: string | null;
}

type ByStream = { parameters: { path: { streamId: string } } };

export interface Interim {
  "/api/overview": { get: Operation<Overview> };
  "/api/pause": { put: Operation<Overview, { requestBody: Json<{ paused: boolean }> }> };
  "/api/certificate": { get: Operation<Certificate> };
  "/api/doctor": { get: Operation<Doctor> };
  "/api/doctor/report": { get: { parameters: Record<never, never>; responses: { 200: { content: { "text/plain": string } } } } };
  "/api/torrents/magnet": {
    post: Operation<TorrentMagnet, { requestBody: { content: { "application/x-bittorrent": string } } }>;
  };
  "/api/stream/{streamId}/subtitles": { get: ByStream & { responses: { 200: Json<Subtitles> } } };
}
