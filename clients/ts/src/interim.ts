// Shapes that the API document does not describe yet. Each goes when the document has it.

/** What a stream's object will say, too. */
export interface StreamExtras {
  dashUrl?: string | null;
}

/** Routes, by path and method. */
export type Interim = Record<never, never>;
