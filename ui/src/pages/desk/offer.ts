// When a pairing code is shown, renewed or covered. Pure: the page tells the time and whether somebody looks.

/** A code lives so long; a clock that says otherwise is wrong. Milliseconds. */
const LIFE = 120_000;
/** After so long without anybody looking, the code is covered. */
export const UNSEEN = 10 * 60_000;

/** When, by this computer's clock, an offer ends that was made just now. Where the clocks disagree, its known life counts. */
export function endOf(expiresAt: string, now: number): number {
  const left = Date.parse(expiresAt) - now;
  return now + (left > LIFE / 2 && left <= LIFE ? left : LIFE - 5000);
}

export type Step = "keep" | "renew" | "cover";

/** What is to be done. `ends`: when the offer ends, where there is one. `hiddenSince`: since when nobody looks. */
export function step(now: number, ends: number | undefined, hiddenSince: number | undefined): Step {
  if (hiddenSince !== undefined) return now - hiddenSince >= UNSEEN ? "cover" : "keep";
  return ends === undefined || now >= ends ? "renew" : "keep";
}

/** A countdown: `1:42`. */
export function countdown(milliseconds: number): string {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

/** The code in two groups: a person reads four letters at a glance. */
export function grouped(code: string): string {
  return code.replace(/^(.{4})(.+)$/, "$1 $2");
}

/** Where somebody without a camera types it: host and port of the offer's address. */
export function addressOf(url: string): string {
  return URL.canParse(url) ? new URL(url).host : url;
}

/** A fingerprint in groups of four, for comparing by eye. Given in hex, in base64url, or grouped already. */
export function fingerprintOf(text: string): string {
  const bare = text.replaceAll(/[\s:]/g, "");
  const hex = /^[0-9a-f]+$/i.test(bare) && bare.length % 4 === 0 && bare.length >= 32 ? bare : hexOf(bare);
  return (hex.toUpperCase().match(/.{1,4}/g) ?? []).join(" ");
}

function hexOf(base64url: string): string {
  try {
    const bytes = atob(base64url.replaceAll("-", "+").replaceAll("_", "/"));
    return [...bytes].map((byte) => byte.charCodeAt(0).toString(16).padStart(2, "0")).join("");
  } catch {
    return base64url;
  }
}
