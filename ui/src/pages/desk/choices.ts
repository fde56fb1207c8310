// What can be chosen for a setting: round values, and the one that it has.

const GB = 1_000_000_000;
const HOUR = 3600;

export const SPACE = [5, 10, 20, 50, 100, 200, 500, 1000].map((size) => size * GB);
export const RESERVE = [1, 2, 5, 10, 20, 50].map((size) => size * GB);
export const KEEP = [6, 12, 24, 3 * 24, 7 * 24, 30 * 24].map((hours) => hours * HOUR);
export const GIVE_UP = [5, 10, 30, 60, 360].map((minutes) => minutes * 60);
export const COUNT = [1, 2, 3, 4, 6, 8, 12, 16];

/** What may convert pictures: three ways, and encoders in silicon by their own names. */
export const ENCODERS: readonly [string, string][] = [["videotoolbox", "VideoToolbox"], ["nvenc", "NVENC"], ["qsv", "Quick Sync"], ["vaapi", "VA-API"], ["amf", "AMF"]];

/** The offered values with the present and the default one among them, in order. What is nearly a present value is left out. */
export function withPresent(offered: readonly number[], ...present: readonly unknown[]): number[] {
  const known = present.filter((value): value is number => typeof value === "number");
  const far = offered.filter((value) => known.every((one) => Math.abs(one - value) > one * 0.08));
  return [...new Set([...far, ...known])].sort((a, b) => a - b);
}
