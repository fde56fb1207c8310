// The films of this person and how far they were watched, on whatever device.
import type { Film } from "@balcony/client";
import { isUnfinished } from "./films";
import { session } from "./session.svelte";

class History {
  films = $state<Film[]>([]);
  /** Whether it was asked for. */
  known = $state(false);

  /** Those that are worth going on with, the last first. */
  get unfinished(): Film[] {
    return this.films.filter((film) => isUnfinished(film.position, film.duration ?? undefined));
  }

  async read(): Promise<void> {
    try {
      this.films = (await session.balcony.call("get", "/api/history")).films;
    } catch {
      // What was read last stays.
    }
    this.known = true;
  }

  async forgetAll(): Promise<void> {
    await session.balcony.call("delete", "/api/history");
    this.films = [];
  }
}

export const history = new History();
