// One server, and how it is asked: address, token, tries and retries. Knows no route by name.

import type { Answer, CallOptions, Init, Method, PathOf, Rest } from "./api.js";
import { asError, BalconyError, fromAnswer } from "./error.js";
import { backoff, Budget, sleep, within } from "./waiting.js";

const MINUTE = 60_000;
/** Tries of one call. */
const TRIES = 4;
const BACKOFF = { base: 500, cap: 10_000 };
/** Retries of all calls together: so many at once, and one more every two seconds. */
const BUDGET = { capacity: 20, perSecond: 0.5 };

export interface ServiceOptions {
  /** `https://host:3443`, with a path where a proxy puts one in front. Without it the page's own origin. */
  baseUrl?: string | undefined;
  token?: string | null | undefined;
  /** Milliseconds for one try of a call; 15 000 without it. */
  attemptTimeout?: number | undefined;
  /** Another `fetch` than the global one. */
  fetch?: typeof globalThis.fetch | undefined;
  /** Where jitter comes from; `Math.random` without it. */
  random?: (() => number) | undefined;
}

export interface Asked extends CallOptions {
  path?: Record<string, string | number> | undefined;
  query?: Record<string, unknown> | undefined;
  body?: unknown;
}

export class Wire {
  readonly random: () => number;
  readonly #attemptTimeout: number;
  readonly #fetch: typeof globalThis.fetch;
  readonly #budget = new Budget(BUDGET.capacity, BUDGET.perSecond);
  #base = "";
  #token: string | undefined;

  constructor(options: ServiceOptions) {
    this.random = options.random ?? Math.random;
    this.#attemptTimeout = options.attemptTimeout ?? 15_000;
    // Called as a function of nothing in particular: browsers refuse `fetch` with another `this`.
    this.#fetch = options.fetch ?? ((...args) => globalThis.fetch(...args));
    this.configure(options);
  }

  get base(): string {
    return this.#base || (globalThis.location?.origin ?? "");
  }

  configure({ baseUrl, token }: Pick<ServiceOptions, "baseUrl" | "token">): void {
    const base = baseUrl === undefined ? this.#base : cleanBase(baseUrl);
    const clean = token === undefined ? this.#token : cleanToken(token);
    this.#base = base;
    this.#token = clean;
  }

  call<M extends Method, P extends PathOf<M>>(method: M, path: P, ...[init]: Rest<M, P>): Promise<Answer<M, P>> {
    return this.ask(method, path as string, (init ?? {}) as Asked & Init<M, P>) as Promise<Answer<M, P>>;
  }

  /** A call by untyped names, with its retries. */
  async ask(method: Method, path: string, asked: Asked = {}): Promise<unknown> {
    const { signal, timeout = MINUTE } = asked;
    const deadline = Date.now() + timeout;
    return within(timeout, signal, async (signal) => {
      for (let failures = 0; ; failures++) {
        try {
          return await within(asked.attemptTimeout ?? this.#attemptTimeout, signal, async (signal) => read(await this.send(method, path, asked, signal)));
        } catch (thrown) {
          const error = asError(thrown);
          // The try before did it, and only its answer was lost.
          if (method === "delete" && failures > 0 && error.status === 404) return undefined;
          const wait = signal.aborted ? undefined : this.#retryIn(error, failures, asked.retry ?? method !== "post", asked.waitWhenBusy === true);
          if (wait === undefined || Date.now() + wait >= deadline) throw error;
          await sleep(wait, signal);
        }
      }
    });
  }

  /** Milliseconds until the next try; `undefined` where there shall be none. */
  #retryIn(error: BalconyError, failures: number, retry: boolean, waitWhenBusy: boolean): number | undefined {
    const wait = Math.max(backoff(failures, BACKOFF.base, BACKOFF.cap, this.random), (error.retryAfter ?? 0) * 1000);
    if (error.status === 429) return waitWhenBusy ? wait : undefined;
    return retry && error.transient && failures + 1 < TRIES && this.#budget.take() ? wait : undefined;
  }

  /** One try: the answer once its head is here and says that all is well. The token travels in the header, and nowhere else. */
  async send(method: Method, path: string, asked: Asked, signal: AbortSignal, accept = "application/json, */*;q=0.5"): Promise<Response> {
    const url = this.#url(path, asked);
    const headers: Record<string, string> = { accept };
    if (this.#token) headers["authorization"] = `Bearer ${this.#token}`;
    const init: RequestInit = { method: method.toUpperCase(), headers, signal, cache: "no-store", credentials: "omit" };
    if (asked.keepalive) init.keepalive = true;
    if (asked.body !== undefined) {
      const raw = asked.contentType !== undefined || isBytes(asked.body);
      headers["content-type"] = asked.contentType ?? (raw ? "application/octet-stream" : "application/json");
      init.body = raw ? (asked.body as BodyInit) : JSON.stringify(asked.body);
    }
    let answer: Response;
    try {
      answer = await this.#fetch(url, init);
    } catch (cause) {
      throw new BalconyError("network", { cause });
    }
    if (!answer.ok) throw fromAnswer(answer.status, await answer.text().catch(() => ""), answer.headers);
    return answer;
  }

  #url(path: string, { path: names = {}, query = {} }: Asked): string {
    const { base } = this;
    if (!base) throw new BalconyError("invalid", { title: "There is no server address", detail: "Set baseUrl to the server's address." });
    refuseMixedContent(base);
    const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => {
      const value = String(names[name] ?? "");
      // Dots alone would climb in the path, and nothing would name something else.
      if (/^\.{0,2}$/.test(value)) throw new BalconyError("invalid", { detail: `${name} is missing.` });
      return encodeURIComponent(value);
    });
    const search = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== null) search.append(name, String(value));
    return base + filled + (`${search}` && `?${search}`);
  }
}

function isBytes(body: unknown): boolean {
  return body instanceof ArrayBuffer || ArrayBuffer.isView(body) || (typeof Blob !== "undefined" && body instanceof Blob);
}

/** The body of a good answer: JSON, text, an archive as a `Blob`, or nothing. */
async function read(answer: Response): Promise<unknown> {
  const type = answer.headers.get("content-type") ?? "";
  try {
    if (type.includes("gzip")) return await answer.blob();
    const text = await answer.text();
    if (answer.status === 204) return undefined;
    if (type.includes("json")) return JSON.parse(text);
    if (!type.includes("html")) return text;
  } catch (cause) {
    throw new BalconyError("network", { title: "The answer broke off", cause });
  }
  throw new BalconyError("network", { title: "Something else answers there", detail: "A web page came back: of a proxy, of a hotspot's sign-in, or of a wrong address." });
}

function cleanBase(text: string): string {
  if (text === "") return "";
  try {
    const url = new URL(text.trim());
    if (/^https?:$/.test(url.protocol) && !url.username && !url.password) return url.origin + url.pathname.replace(/\/+$/, "");
  } catch {
    // As good as any other that is none.
  }
  throw new BalconyError("invalid", { title: "That is no server address", detail: "It looks like https://192.168.1.20:3443." });
}

function cleanToken(token: string | null): string | undefined {
  const text = token?.trim();
  if (text && !/^[\x21-\x7e]+$/.test(text)) throw new BalconyError("invalid", { title: "That is no token", detail: "It has letters, digits and signs, and no blanks." });
  return text || undefined;
}

/** Browsers drop such requests without a reason that a program can read (Mixed Content, section 4.4): say it before. */
function refuseMixedContent(base: string): void {
  if (globalThis.location?.protocol !== "https:" || !base.startsWith("http:")) return;
  const { hostname, host } = new URL(base);
  if (/^(localhost|127(\.\d+){3}|\[::1\])$|\.localhost$/.test(hostname)) return;
  throw new BalconyError("mixed_content", { detail: `This page came over https, and may not ask http://${host}. Use the server's https address (port 3443, unless it was changed).` });
}
