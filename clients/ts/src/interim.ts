// Shapes of routes that the API document does not describe yet. Each goes when the document has it.

type Json<Body> = { content: { "application/json": Body } };

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
  "/api/stream/{streamId}/subtitles": { get: ByStream & { responses: { 200: Json<Subtitles> } } };
}
