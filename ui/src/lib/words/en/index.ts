// English. The one catalogue that the others are measured by.
import type { Told } from "..";
import { say as common } from "./common";
import { say as desk } from "./desk";
import { say as phone } from "./phone";
import { say as player } from "./player";
import { errors, failures, findings, messages, whys } from "./server";

export const words = { say: { ...common, ...desk, ...phone, ...player }, messages, whys, findings, failures, errors };

type Same<T> = { [K in keyof T]: T[K] extends string ? string : T[K] };

/** What every language has. */
export interface Catalogue {
  say: Same<(typeof words)["say"]>;
  /** By `messageKey`. */
  messages: Record<string, string | ((told: Told) => string)>;
  /** By `whyKey`. */
  whys: Record<string, string | ((told: Told) => string)>;
  /** By the `messageKey` of a finding. */
  findings: Record<string, string | ((told: Told) => string)>;
  /** By the `code` of a stream's error. Without a detail, the server's own is shown. */
  failures: Record<string, { title: string; detail?: string }>;
  /** By the `code` of a refused question. */
  errors: Record<string, string | ((told: { server: string; seconds: number }) => string)>;
}
