// Where in the pages somebody is. Hash routes: the same files work at `/`, in the window, and without the computer.

export interface Route {
  /** The first part: `""` is home. */
  page: string;
  /** The second part. */
  id: string | undefined;
  /** What follows `?` in the hash. */
  query: URLSearchParams;
}

/** Reads a hash like `#/stream/abc?x=1`. Total. */
export function parse(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [page = "", id] = path.split("/");
  return { page, id: id ? decode(id) : undefined, query: new URLSearchParams(query) };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

class Router {
  route = $state<Route>(parse(location.hash));
  /** Whether going back stays in these pages. */
  #depth = 0;

  constructor() {
    addEventListener("hashchange", () => {
      this.route = parse(location.hash);
      scrollTo(0, 0);
    });
  }

  /** Goes somewhere, for example `/stream/abc`. `replace`: without a way back to where it is now. */
  go(path: string, { replace = false } = {}): void {
    if (replace) location.replace(`#${path}`);
    else {
      this.#depth += 1;
      location.hash = path;
    }
  }

  /** Back, or home where there is no back. */
  back(): void {
    if (this.#depth > 0) {
      this.#depth -= 1;
      history.back();
    } else this.go("/", { replace: true });
  }
}

/** The one router of this page. */
export const router = new Router();
