// What the pages say, in the reader's language. The catalogues are typed: a language that lacks a sentence does not compile.
// Another language is another folder beside `en` with the same exports, and its tag in `LANGUAGES`.
import { BalconyError, type Stream } from "@balcony/client";
import { bytes, duration, formatIn, percent, speed, whole } from "../format";
import { session } from "../session.svelte";
import type { Catalogue } from "./en";

const LANGUAGES = { en: () => import("./en"), de: () => import("./de") } satisfies Record<string, () => Promise<{ words: Catalogue }>>;
export type Language = keyof typeof LANGUAGES;
/** Each in its own words. */
export const LANGUAGE_NAMES: readonly [Language, string][] = [["en", "English"], ["de", "Deutsch"]];

let words: Catalogue;
let chosen: Language = "en";

/** Loads the first of these languages (BCP 47) that there is, English otherwise. */
export async function chooseLanguage(wanted: readonly string[]): Promise<Language> {
  const bases = wanted.map((tag) => tag.toLowerCase().split("-")[0] ?? "");
  chosen = (bases.find((base) => base in LANGUAGES) as Language | undefined) ?? "en";
  ({ words } = await LANGUAGES[chosen]());
  formatIn(wanted.find((tag) => tag.toLowerCase().startsWith(chosen)) ?? chosen);
  document.documentElement.lang = chosen;
  return chosen;
}

/** The language that is spoken. */
export function language(): Language {
  return chosen;
}

type Say = Catalogue["say"];
type Given<K extends keyof Say> = Say[K] extends (given: infer P) => string ? [given: P] : [];

/** A sentence or a word of the pages. */
export function say<K extends keyof Say>(key: K, ...given: Given<K>): string {
  const text = words.say[key] as string | ((given: unknown) => string);
  return typeof text === "string" ? text : text(given[0]);
}

/** Numbers and names inside a message of the server. */
export type Params = Record<string, string | number | boolean | undefined>;

/** A message of the server by its key, in its own English where the key is new. */
export function sayMessage(stream: Pick<Stream, "message" | "messageKey" | "messageParams" | "error">): string {
  if (stream.error) return sayFailure(stream.error).title;
  return byKey(words.messages, stream.messageKey, stream.messageParams) ?? stream.message;
}

/** Why it is copied or converted, in one sentence. */
export function sayWhy(stream: Pick<Stream, "why" | "whyKey">): string | undefined {
  const own = stream.why ?? undefined;
  return stream.whyKey ? (byKey(words.whys, stream.whyKey, { why: own }) ?? own) : own;
}

/** A finding of the server about itself. */
export function sayFinding(finding: { message: string; messageKey: string; messageParams?: unknown }): string {
  return byKey(words.findings, finding.messageKey, finding.messageParams) ?? finding.message;
}

/** What the doctor looked at. */
export function sayCheck(check: string): string {
  const key = `check_${check}`;
  return Object.hasOwn(words.say, key) ? String(words.say[key as keyof Say]) : check.charAt(0).toUpperCase() + check.slice(1);
}

export interface Failure {
  title: string;
  detail: string;
}

/** What went wrong with a film: a title, and a sentence that says what to do. */
export function sayFailure(error: { code: string; title: string; detail: string }): Failure {
  const own = words.failures[error.code];
  if (!own) return { title: error.title, detail: error.detail };
  return { title: own.title, detail: own.detail ?? error.detail };
}

/** What went wrong with a question to the server, in one sentence. */
export function sayError(error: unknown): string {
  if (!(error instanceof BalconyError)) return words.say.unexpected;
  const own = words.errors[error.code];
  if (own === undefined) return error.detail || error.title;
  return typeof own === "string" ? own : own({ server: session.name, seconds: error.retryAfter ?? 0 });
}

function byKey(texts: Record<string, ((given: Told) => string) | string>, key: string, params: unknown): string | undefined {
  const text = Object.hasOwn(texts, key) ? texts[key] : undefined;
  return typeof text === "function" ? text(given(params)) : text;
}

/** Lists are written with commas. */
function text(value: unknown): string {
  return Array.isArray(value) ? value.map(String).join(", ") : String(value ?? "");
}

/** Parameters that are there as they are written; a number that is not there is 0. */
export interface Told {
  n(name: string): number;
  t(name: string): string;
  bytes(name: string): string;
  speed(name: string): string;
  duration(name: string): string;
  percent(name: string): string;
  whole(name: string): string;
}

function given(params: unknown): Told {
  const all = (typeof params === "object" && params !== null ? params : {}) as Params;
  const n = (name: string) => Number(all[name] ?? 0);
  return {
    n,
    t: (name) => text(all[name]),
    bytes: (name) => bytes(n(name)),
    speed: (name) => speed(n(name)),
    duration: (name) => duration(n(name)),
    percent: (name) => percent(n(name)),
    whole: (name) => whole(n(name)),
  };
}
