// Small decisions about films and files that several pages need.

/** A file of a torrent as it can be chosen. */
export interface Choice {
  index: number;
  /** Its name without what all have in common, so that the episode shows. */
  name: string;
  length: number;
}

/** The name of a file without its folders. */
export function baseName(path: string): string {
  return path.split("/").pop() || path;
}

/** How many letters all names begin with, back to the last break between words; 0 where a name would be left with nothing. */
export function commonBeginning(names: readonly string[]): number {
  const [first = "", ...others] = names;
  if (others.length === 0) return 0;
  let length = 0;
  while (length < first.length && others.every((name) => name[length] === first[length])) length += 1;
  // Numbers stay whole: "Episode 1" of "Episode 1" and "Episode 12".
  while (length > 0 && !/[\s._\-–[(]/.test(first[length - 1] ?? "")) length -= 1;
  return names.every((name) => /[^.]+\.[^.]+$/.test(name.slice(length)) || !/\./.test(name)) ? length : 0;
}

/** The playable files in the order of their paths, numbers read as numbers. */
export function choices(files: readonly { index: number; path: string; length: number; playable: boolean }[]): Choice[] {
  const films = files.filter((file) => file.playable);
  const cut = commonBeginning(films.map((file) => baseName(file.path)));
  const sorted = [...films].sort((a, b) => a.path.localeCompare(b.path, undefined, { numeric: true }));
  return sorted.map(({ index, path, length }) => ({ index, length, name: baseName(path).slice(cut) }));
}

/** Whether a film was begun and not finished: only then it is worth going on with. */
export function isUnfinished(position: number, duration: number | undefined): boolean {
  if (position < 10) return false;
  return duration === undefined || duration <= 0 || position < duration - Math.max(30, duration * 0.05);
}
