// Subtitles as text: WebVTT, SubRip and Advanced SubStation Alpha become cues. Total: what cannot be read is left out. No markup of a
// file ever becomes markup of the page; of styles, italic, bold and underline stay.

/** A run of text in one style. */
export interface Run {
  text: string;
  italic: boolean;
  bold: boolean;
  underline: boolean;
}

export interface Cue {
  /** Seconds. */
  start: number;
  /** Seconds. */
  end: number;
  lines: Run[][];
  /** Whether it stands on top of the picture. */
  top: boolean;
}

/** Largest file that is read, in bytes. */
export const LARGEST = 8 * 1024 * 1024;
const MOST_CUES = 50_000;

/** The text of a file of unknown charset: by its byte order mark, else UTF-8 where it is valid, else windows-1252. */
export function decode(bytes: Uint8Array): string {
  const [a, b, c] = bytes;
  if (a === 0xff && b === 0xfe) return new TextDecoder("utf-16le").decode(bytes);
  if (a === 0xfe && b === 0xff) return new TextDecoder("utf-16be").decode(bytes);
  if (a === 0xef && b === 0xbb && c === 0xbf) return new TextDecoder("utf-8").decode(bytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("windows-1252").decode(bytes);
  }
}

/** The cues of a file, by what it looks like; empty where it is no subtitle file. In order of their start. */
export function cuesOf(text: string): Cue[] {
  const clean = text.replace(/^\ufeff/, "").replace(/\r\n?/g, "\n").replace(/\0/g, "");
  const cues = /^\[(script info|v4\+? styles|events)\]/im.test(clean.slice(0, 4000)) ? ass(clean) : timed(clean);
  return cues.filter((cue) => cue.end > cue.start && cue.lines.length > 0).sort((a, b) => a.start - b.start || a.end - b.end);
}

const ARROW = /^\s*(\S+)\s+-->\s+(\S+)(.*)$/;

/** WebVTT (W3C, section 6) and SubRip: blocks with an arrow in them. */
function timed(text: string): Cue[] {
  const cues: Cue[] = [];
  for (const block of text.split(/\n[ \t]*\n+/)) {
    const rows = block.split("\n");
    // The arrow stands in the first row, or behind an identifier.
    const at = rows.slice(0, 3).findIndex((row) => ARROW.test(row));
    const [, from = "", to = "", settings = ""] = ARROW.exec(rows[at] ?? "") ?? [];
    const [start, end] = [seconds(from), seconds(to)];
    if (start === undefined || end === undefined) continue;
    const body = rows.slice(at + 1).join("\n");
    cues.push({ start, end, lines: runs(body), top: /\{\\an[789]\}/.test(body) || /(^|\s)line:(0|[0-4]?\d(\.\d+)?%)(\s|,|$)/.test(settings) });
    if (cues.length >= MOST_CUES) break;
  }
  return cues;
}

/** `1:02:03.400`, `02:03,4`, `0:00:01.25`. */
function seconds(stamp: string): number | undefined {
  const match = /^(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,6}))?$/.exec(stamp);
  if (!match) return undefined;
  const [, hours = "0", minutes = "0", whole = "0", fraction = "0"] = match;
  return Number(hours) * 3600 + Number(minutes) * 60 + Number(whole) + Number(`0.${fraction}`);
}

/** The `Dialogue:` rows of SubStation files, by the columns that their `Format:` row names. */
function ass(text: string): Cue[] {
  const events = text.slice(Math.max(0, text.search(/^\[events\]/im)));
  let columns = ["layer", "start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text"];
  const cues: Cue[] = [];
  for (const row of events.split("\n")) {
    const [, kind = "", rest = ""] = /^\s*(format|dialogue)\s*:\s*(.*)$/i.exec(row) ?? [];
    if (kind.toLowerCase() === "format") columns = rest.split(",").map((name) => name.trim().toLowerCase());
    if (kind.toLowerCase() !== "dialogue") continue;
    const cells = rest.split(",");
    const cell = (name: string) => cells[columns.indexOf(name)]?.trim() ?? "";
    const [start, end] = [seconds(cell("start")), seconds(cell("end"))];
    // The text is the last column, and may have commas in it.
    const said = cells.slice(Math.max(0, columns.length - 1)).join(",");
    if (start === undefined || end === undefined || /\{[^}]*\\p[1-9]/.test(said)) continue;
    cues.push({ start, end, lines: runs(said.replace(/\\N/gi, "\n").replace(/\\h/g, "\u00a0")), top: /\{[^}]*\\an[789]/.test(said) });
    if (cues.length >= MOST_CUES) break;
  }
  return cues;
}

const ENTITIES: Record<string, string> = { amp: "&", lt: "<", gt: ">", nbsp: "\u00a0", lrm: "\u200e", rlm: "\u200f", quot: '"', apos: "'" };
/** A tag of WebVTT or SubRip, an override of SubStation, an entity, a line's end. */
const TOKEN = /<(\/?)([a-z]+)?[^<>]*>|\{([^{}]*)\}|&([a-z]+);|\n/gi;

/** Text with its marks as lines of runs. */
function runs(text: string): Run[][] {
  const style = { italic: false, bold: false, underline: false };
  const lines: Run[][] = [[]];
  const add = (text: string) => {
    const line = lines.at(-1);
    const last = line?.at(-1);
    if (!text || !line) return;
    if (last && last.italic === style.italic && last.bold === style.bold && last.underline === style.underline) last.text += text;
    else line.push({ text, ...style });
  };
  let done = 0;
  for (const token of text.matchAll(TOKEN)) {
    const [whole, closing, tag, overrides, entity] = token;
    // Braces that hold no override, and angle brackets that hold no name, are text.
    const isText = (overrides !== undefined && !overrides.includes("\\")) || (whole.startsWith("<") && !tag && !/^<\d/.test(whole)) || (entity !== undefined && !(entity.toLowerCase() in ENTITIES));
    add(text.slice(done, token.index));
    done = token.index + whole.length;
    if (isText) add(whole);
    else if (whole === "\n") lines.push([]);
    else if (entity !== undefined) add(ENTITIES[entity.toLowerCase()] ?? "");
    else if (overrides !== undefined) override(overrides, style);
    else mark(tag?.toLowerCase() ?? "", closing !== "/", style);
  }
  add(text.slice(done));
  return lines.map(trimmed).filter((line) => line.length > 0);
}

function mark(tag: string, on: boolean, style: Omit<Run, "text">): void {
  if (tag === "i" || tag === "em") style.italic = on;
  if (tag === "b" || tag === "strong") style.bold = on;
  if (tag === "u") style.underline = on;
}

function override(overrides: string, style: Omit<Run, "text">): void {
  for (const [, name = "", value = ""] of overrides.matchAll(/\\([ibur])(\d*)(?![a-z])/g)) {
    const on = value !== "" && value !== "0";
    if (name === "i") style.italic = on;
    if (name === "b") style.bold = on;
    if (name === "u") style.underline = on;
    if (name === "r") Object.assign(style, { italic: false, bold: false, underline: false });
  }
}

function trimmed(line: Run[]): Run[] {
  const [first, last] = [line[0], line.at(-1)];
  if (first) first.text = first.text.trimStart();
  if (last) last.text = last.text.trimEnd();
  return line.filter((run) => run.text !== "");
}

/** The cues that are shown at a time, in order. `cues` are in order of their start. */
export function shownAt(cues: readonly Cue[], time: number): Cue[] {
  let [low, high] = [0, cues.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((cues[middle]?.start ?? 0) <= time) low = middle + 1;
    else high = middle;
  }
  // Those that began before may still stand; a file that lets hundreds stand at once is not looked through for ever.
  return cues.slice(Math.max(0, low - 200), low).filter((cue) => time < cue.end);
}

/** The text of one cue in WebVTT's marks. */
export function cueText(cue: Cue): string {
  const escaped = (text: string) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const run = ({ text, italic, bold, underline }: Run) =>
    [["i", italic], ["b", bold], ["u", underline]].reduce((inner, [tag, on]) => (on ? `<${tag}>${inner}</${tag}>` : inner), escaped(text));
  return cue.lines.map((line) => line.map(run).join("")).join("\n");
}
