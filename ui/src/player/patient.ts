// Requests for media that do not give up. A segment that is late, a server that is gone for a while, a line that hangs: the loader above
// never hears of it, it only waits longer; so it neither leaves a rendition nor stops. What can never be had is told to it at once.

/** What a request waits for. */
export interface Late {
  /** HTTP status; 0 where nobody answered. */
  status: number;
  /** The server's code, for example `segment_late`. */
  code: string | undefined;
  /** The server's sentence. */
  detail: string | undefined;
}

interface Options {
  uri: string;
  method?: string;
  headers?: Record<string, string>;
  responseType?: XMLHttpRequestResponseType;
  withCredentials?: boolean;
}

interface Answer {
  body: unknown;
  statusCode: number;
  headers: Record<string, string>;
  method: string;
  url: string;
  rawRequest: XMLHttpRequest;
}

type Callback = (error: Error | null, answer: Answer | Record<string, never>) => void;
/** What the loader keeps on its requests. */
type Request = XMLHttpRequest & { requestTime?: number };

/** Answers that may well be another in a moment. */
const PASSING = new Set([0, 408, 425, 429, 500, 502, 503, 504]);
/** Milliseconds without a byte after which a request is taken as lost. The server answers within 8 s. */
const SILENCE = 20_000;
const LONGEST_WAIT = 4_000;

/** Milliseconds until the next try. */
export function waitAfter(tries: number, retryAfter: string | null, random = Math.random()): number {
  const asked = Number(retryAfter);
  if (retryAfter !== null && Number.isFinite(asked) && asked >= 0) return Math.min(LONGEST_WAIT * 2, Math.max(250, asked * 1000));
  return Math.min(LONGEST_WAIT, 300 * 2 ** Math.min(tries, 8)) * (0.75 + random * 0.5);
}

/** All requests of one player. */
export class PatientRequests {
  readonly #hurried = new Set<() => void>();
  readonly #late = new Map<Request, Late>();
  readonly #told: (late: Late | undefined) => void;

  /** `told` hears what is waited for, and `undefined` when nothing is late any more. */
  constructor(told: (late: Late | undefined) => void) {
    this.#told = told;
  }

  /** Tries again at once what waits: the server is back. */
  hurry(): void {
    for (const again of [...this.#hurried]) again();
  }

  /** Takes the place of the loader's own request function. */
  readonly send = (options: Options, callback: Callback): Request => {
    const request: Request = new XMLHttpRequest();
    const method = options.method ?? "GET";
    let tries = 0;
    let over = false;
    let silence: ReturnType<typeof setTimeout> | undefined;
    let pause: ReturnType<typeof setTimeout> | undefined;

    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => {
        attempt.abort();
        again();
      }, SILENCE);
    };
    const end = () => {
      over = true;
      clearTimeout(silence);
      clearTimeout(pause);
      this.#hurried.delete(start);
      this.#settle(request);
    };
    const again = () => {
      clearTimeout(silence);
      if (over) return;
      this.#settle(request, lateness(request));
      const wait = waitAfter(tries++, request.getResponseHeader("retry-after"));
      this.#hurried.add(start);
      pause = setTimeout(start, wait);
    };
    const attempt = { abort: XMLHttpRequest.prototype.abort.bind(request) };
    const start = () => {
      clearTimeout(pause);
      this.#hurried.delete(start);
      request.open(method, options.uri, true);
      for (const [name, value] of Object.entries(options.headers ?? {})) request.setRequestHeader(name, value);
      if (options.responseType) request.responseType = options.responseType;
      request.withCredentials = options.withCredentials ?? false;
      request.send();
      heard();
    };

    request.addEventListener("progress", heard);
    request.addEventListener("readystatechange", () => {
      // How fast the line is, is measured from the first byte on: what comes before is the swarm or the encoder.
      if (request.readyState === XMLHttpRequest.HEADERS_RECEIVED) request.requestTime = Date.now();
    });
    request.addEventListener("error", again);
    request.addEventListener("load", () => {
      if (PASSING.has(request.status)) return again();
      end();
      callback(null, answerOf(request, method, options.uri));
    });
    // The loader's own abort ends it for good.
    request.abort = () => {
      if (over) return;
      end();
      attempt.abort();
    };
    start();
    return request;
  };

  #settle(request: Request, late?: Late): void {
    if (late) this.#late.set(request, late);
    else if (!this.#late.delete(request)) return;
    this.#told([...this.#late.values()].at(-1));
  }
}

function lateness(request: XMLHttpRequest): Late {
  const { status } = request;
  const problem = status >= 400 ? problemOf(request) : {};
  return { status, code: text(problem["code"]), detail: text(problem["detail"]) };
}

function text(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

/** The problem (RFC 9457) in an answer of any type. */
function problemOf(request: XMLHttpRequest): Record<string, unknown> {
  try {
    const body = request.responseType === "arraybuffer" ? new TextDecoder().decode(request.response as ArrayBuffer) : request.responseText;
    const problem: unknown = JSON.parse(body);
    return typeof problem === "object" && problem !== null ? (problem as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

function answerOf(request: XMLHttpRequest, method: string, url: string): Answer {
  const rows = request.getAllResponseHeaders().trim().split(/\r?\n/).map((row) => row.split(/:\s*(.*)/, 2) as [string, string]);
  const body: unknown = request.responseType === "arraybuffer" ? request.response : request.responseText;
  return { body, statusCode: request.status, headers: Object.fromEntries(rows.map(([name, value]) => [name.toLowerCase(), value ?? ""])), method, url, rawRequest: request };
}
