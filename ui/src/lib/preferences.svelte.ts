// What this browser was told to prefer. Kept here and nowhere else.
import { local } from "./local";

export type Theme = "system" | "light" | "dark";
export type Method = "auto" | "hls" | "dash" | "original";

const read = <T extends string>(key: string, allowed: readonly T[], otherwise: T): T => {
  const kept = local.get(key) as T | undefined;
  return kept !== undefined && allowed.includes(kept) ? kept : otherwise;
};

class Preferences {
  #theme = $state(read<Theme>("balcony.theme", ["system", "light", "dark"], "system"));
  #method = $state(read<Method>("balcony.method", ["auto", "hls", "dash", "original"], "auto"));

  constructor() {
    this.#dress();
  }

  get theme(): Theme {
    return this.#theme;
  }

  set theme(theme: Theme) {
    this.#theme = theme;
    local.set("balcony.theme", theme);
    this.#dress();
  }

  /** By which way films come. */
  get method(): Method {
    return this.#method;
  }

  set method(method: Method) {
    this.#method = method;
    local.set("balcony.method", method);
  }

  /** The language (BCP 47), or nothing for the browser's own. */
  get language(): string | undefined {
    return local.get("balcony.language");
  }

  set language(tag: string | undefined) {
    if (tag) local.set("balcony.language", tag);
    else local.drop("balcony.language");
  }

  #dress(): void {
    if (this.#theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = this.#theme;
  }
}

/** The preferences of this browser. */
export const preferences = new Preferences();
