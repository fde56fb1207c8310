// Shapes of routes that the API document does not describe yet. Each goes when the document has it.

type Json<Body> = { content: { "application/json": Body } };
type Operation<Answer> = { parameters: Record<never, never>; responses: { 200: Json<Answer> } };

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

/** What a stream's object will say, too. */
export interface StreamExtras {
  subtitles?: Omit<SubtitleTrack, "url">[] | null;
  dashUrl?: string | null;
}

type ByStream = { parameters: { path: { streamId: string } } };

export interface Interim {
  "/api/doctor": { get: Operation<Doctor> };
  "/api/doctor/report": { get: { parameters: Record<never, never>; responses: { 200: { content: { "text/plain": string } } } } };
  "/api/stream/{streamId}/subtitles": { get: ByStream & { responses: { 200: Json<Subtitles> } } };
}
