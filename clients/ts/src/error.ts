// What can go wrong, as one class with a stable `code`. Turns the server's problems (RFC 9457) into it; decides nothing about retrying.

/** Seconds. Nobody waits for longer. */
const DAY = 86_400;

/** Status by code, as the server gives them. */
const STATUS = {
  bad_request: 400,
  bad_magnet: 400,
  unauthenticated: 401,
  forbidden: 403,
  not_found: 404,
  method_not_allowed: 405,
  conflict: 409,
  no_space: 409,
  offer_expired: 410,
  too_large: 413,
  unsupported_media_type: 415,
  range_not_satisfiable: 416,
  wrong_host: 421,
  invalid: 422,
  unsafe_torrent: 422,
  not_playable: 422,
  no_peers: 422,
  too_many_requests: 429,
  queue_full: 429,
  internal: 500,
  segment_late: 503,
  torrent_failed: 422,
  conversion_failed: 422,
} as const;

/** Codes that the server gives, in a problem or in a stream's `error`. */
export type ServerCode = keyof typeof STATUS;

/**
 * Codes of this library:
 * `network` the server was not reached, or its answer was cut short;
 * `timeout` it took longer than allowed;
 * `aborted` the caller's signal said so;
 * `stopped` the stream that was waited for was stopped or expired;
 * `mixed_content` a page that came over https may not ask an http address.
 */
export type ClientCode = "network" | "timeout" | "aborted" | "stopped" | "mixed_content";

export type ErrorCode = ServerCode | ClientCode;

const OWN: Record<ClientCode, readonly [title: string, detail: string]> = {
  network: ["The server cannot be reached", "Check that it runs and that this device is in the same network."],
  timeout: ["It took too long", "Try again."],
  aborted: ["It was called off", "The caller ended it."],
  stopped: ["The stream was stopped", "Start it again to go on."],
  mixed_content: ["This page may not ask that address", "A page that came over https can only reach the server's https address."],
};

export interface ErrorParts {
  /** The HTTP status; 0 where there was no answer. */
  status?: number;
  title?: string;
  detail?: string;
  /** Seconds after which the server wants to be asked again. */
  retryAfter?: number | undefined;
  /** Finds the request in the server's log. */
  traceId?: string | undefined;
  cause?: unknown;
}

/** Everything that this library throws. Branch on `code`; show `title` and `detail`, or your own words for the code. */
export class BalconyError extends Error {
  override readonly name = "BalconyError";
  readonly code: ErrorCode;
  readonly status: number;
  readonly title: string;
  readonly detail: string;
  readonly retryAfter: number | undefined;
  readonly traceId: string | undefined;

  constructor(code: ErrorCode, parts: ErrorParts = {}) {
    const [title, detail] = OWN[code as ClientCode] ?? [code, ""];
    super(parts.detail || parts.title || detail || title, "cause" in parts ? { cause: parts.cause } : {});
    this.code = code;
    this.status = parts.status ?? 0;
    this.title = parts.title ?? title;
    this.detail = parts.detail ?? detail;
    this.retryAfter = parts.retryAfter;
    this.traceId = parts.traceId;
  }

  /** Whether the same request may well succeed in a moment: no answer, or a failure of the server or of what stands before it. */
  get transient(): boolean {
    return this.code === "network" || this.code === "timeout" || this.status >= 500;
  }
}

/** Whether somebody who goes on asking need not give up: a 404 without a trace is a proxy's that does not find our server just now. */
export function isBearable(error: BalconyError): boolean {
  return error.transient || error.status === 429 || (error.status === 404 && error.traceId === undefined);
}

/** Anything that was thrown, as our error: what `fetch` and a body's reader throw means that the line failed. */
export function asError(thrown: unknown): BalconyError {
  return thrown instanceof BalconyError ? thrown : new BalconyError("network", { cause: thrown });
}

export function isServerCode(code: unknown): code is ServerCode {
  return typeof code === "string" && Object.hasOwn(STATUS, code);
}

/** The error that an answer other than 2xx stands for. Answers of proxies, which are no problems of ours, are mapped by their status. */
export function fromAnswer(status: number, body: string, headers: Headers): BalconyError {
  const problem = parse(body);
  const text = (key: string): string | undefined => (typeof problem[key] === "string" ? (problem[key] as string) : undefined);
  const parts: ErrorParts = { status, retryAfter: seconds(headers.get("retry-after")), traceId: text("traceId") };
  const title = text("title");
  const detail = text("detail");
  if (title) parts.title = title;
  if (detail) parts.detail = detail;
  return new BalconyError(isServerCode(problem["code"]) ? problem["code"] : codeOf(status), parts);
}

function parse(body: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(body);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** The nearest code of a status that came without one of ours. */
function codeOf(status: number): ErrorCode {
  if (status >= 502 && status <= 504) return "network";
  const known = Object.entries(STATUS).find(([, its]) => its === status);
  return known ? (known[0] as ServerCode) : status >= 500 ? "internal" : "bad_request";
}

/** `Retry-After` in seconds: a number or a date (RFC 9110 section 10.2.3). */
function seconds(header: string | null): number | undefined {
  if (!header) return undefined;
  const value = /^\d+$/.test(header.trim()) ? Number(header) : /GMT\s*$/.test(header) ? (Date.parse(header) - Date.now()) / 1000 : NaN;
  return Number.isNaN(value) ? undefined : Math.min(Math.max(0, value), DAY);
}

/** Calls what the caller gave us. A mistake in it is the caller's to hear of, and ends nothing of ours. */
export function report(call: () => void): void {
  try {
    call();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
