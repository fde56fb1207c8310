// Pictures for the bar: small stills in sheets, as an image playlist of the master tells them (Roku's image media playlists:
// EXT-X-IMAGE-STREAM-INF, EXT-X-TILES). Total; without such a playlist there are none.

/** One still, cut out of a sheet. Sizes in CSS pixels. */
export interface Preview {
  url: string;
  width: number;
  height: number;
  /** Where it is on the sheet. */
  x: number;
  y: number;
  sheetWidth: number;
  sheetHeight: number;
}

interface Sheet {
  url: string;
  /** Seconds. */
  start: number;
  duration: number;
  columns: number;
  rows: number;
  width: number;
  height: number;
  /** Seconds for which one still stands. */
  each: number;
}

const MOST_SHEETS = 5000;
/** Width at which a still is shown. */
const SHOWN = 176;

/** Attributes of a tag. */
function attributes(list: string): Record<string, string> {
  return Object.fromEntries(Array.from(list.matchAll(/([A-Z0-9-]+)=("[^"]*"|[^,]*)/g), ([, name = "", value = ""]) => [name, value.replace(/^"|"$/g, "")]));
}

/** The address of the master's image playlist whose stills are nearest to what is shown. */
export function imagePlaylist(master: string, base: string): string | undefined {
  const found = Array.from(master.matchAll(/^#EXT-X-IMAGE-STREAM-INF:(.*)$/gm), ([, list = ""]) => attributes(list)).filter(({ URI }) => URI);
  const width = ({ RESOLUTION = "" }: Record<string, string>) => Number(RESOLUTION.split("x")[0]) || 0;
  found.sort((a, b) => Math.abs(width(a) - SHOWN * 2) - Math.abs(width(b) - SHOWN * 2));
  const uri = found[0]?.["URI"];
  return uri && new URL(uri, base).href;
}

/** The sheets of an image playlist. */
export function sheets(playlist: string, base: string): Sheet[] {
  const all: Sheet[] = [];
  let [start, duration] = [0, 0];
  let tiles: Record<string, string> = {};
  for (const row of playlist.split(/\r?\n/)) {
    if (row.startsWith("#EXTINF:")) duration = Number.parseFloat(row.slice(8)) || 0;
    else if (row.startsWith("#EXT-X-TILES:")) tiles = attributes(row.slice(13));
    else if (row !== "" && !row.startsWith("#") && all.length < MOST_SHEETS) {
      const [columns = 1, rows = 1] = (tiles["LAYOUT"] ?? "1x1").split("x").map(Number);
      const [width = 0, height = 0] = (tiles["RESOLUTION"] ?? "").split("x").map(Number);
      const each = Number(tiles["DURATION"]) || duration / Math.max(1, columns * rows);
      if (width > 0 && height > 0 && columns > 0 && rows > 0 && each > 0) all.push({ url: new URL(row, base).href, start, duration, columns, rows, width, height, each });
      start += duration;
    }
  }
  return all;
}

/** The still at a time. */
export function previewAt(all: readonly Sheet[], time: number): Preview | undefined {
  const sheet = all.find(({ start, duration }) => time >= start && time < start + duration);
  if (!sheet) return undefined;
  const tile = Math.min(sheet.columns * sheet.rows - 1, Math.floor((time - sheet.start) / sheet.each));
  const scale = Math.min(1, SHOWN / sheet.width);
  const [width, height] = [Math.round(sheet.width * scale), Math.round(sheet.height * scale)];
  return { url: sheet.url, width, height, x: (tile % sheet.columns) * width, y: Math.floor(tile / sheet.columns) * height, sheetWidth: width * sheet.columns, sheetHeight: height * sheet.rows };
}

/** Looks for stills of a stream; a function of the time where there are some. */
export async function findPreviews(streamUrl: string, signal: AbortSignal): Promise<((time: number) => Preview | undefined) | undefined> {
  try {
    const read = async (url: string) => (await fetch(url, { signal, credentials: "omit" })).text();
    const address = imagePlaylist(await read(streamUrl), streamUrl);
    if (!address) return undefined;
    const all = sheets(await read(address), address);
    return all.length > 0 ? (time) => previewAt(all, time) : undefined;
  } catch {
    return undefined;
  }
}
