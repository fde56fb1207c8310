// The pairing code on the screen: a new one before the old one ends while somebody looks, none while nobody does.
import { BalconyError, type Device, type Offer } from "@balcony/client";
import { untrack } from "svelte";
import { clock } from "$lib/clock.svelte";
import { live } from "$lib/live.svelte";
import { session } from "$lib/session.svelte";
import { sayError } from "$lib/words";
import { endOf, step } from "./offer";

/** How often it is asked what became of the code. Milliseconds. */
const LOOK = 3000;
/** How soon a code is asked for again that could not be had. Milliseconds. */
const AGAIN = 5000;

export type Covered = "unseen" | "elsewhere";

export class Offers {
  offer = $state<Offer>();
  /** When it ends, by this computer's clock. */
  ends = $state<number>();
  covered = $state<Covered>();
  /** The device that came in by it. */
  came = $state<Device>();
  /** Why there is no code. */
  problem = $state<string>();
  /** Whether the one before ended by wrong codes. */
  wasTried = $state(false);
  #asking = false;
  #triedAt = 0;
  #hiddenSince: number | undefined = document.visibilityState === "hidden" ? Date.now() : undefined;

  /** Keeps a code on the screen until the effect that called it ends. */
  keep(): void {
    $effect(() => {
      const visible = () => {
        const hidden = document.visibilityState === "hidden";
        if (!hidden) this.#decide(Date.now());
        this.#hiddenSince = hidden ? Date.now() : undefined;
        if (!hidden) this.#decide(Date.now());
      };
      document.addEventListener("visibilitychange", visible);
      const looking = setInterval(() => void this.#look(), LOOK);
      return () => {
        document.removeEventListener("visibilitychange", visible);
        clearInterval(looking);
      };
    });
    $effect(() => {
      const { now } = clock;
      untrack(() => this.#decide(now));
    });
    // Whoever comes in is told of as an event, before the next look.
    $effect(() => {
      if (live.newcomers.size > 0) untrack(() => void this.#look());
    });
  }

  /** Shows a code, whatever was before. */
  show(): void {
    this.covered = undefined;
    this.came = undefined;
    this.wasTried = false;
    void this.#open();
  }

  #decide(now: number): void {
    if (this.covered || this.came || this.#asking) return;
    const next = step(now, this.ends, this.#hiddenSince);
    if (next === "cover") this.#cover("unseen");
    else if (next === "renew" && now - this.#triedAt >= (this.problem ? AGAIN : 0)) void this.#open();
  }

  #cover(why: Covered): void {
    this.offer = undefined;
    this.ends = undefined;
    this.covered = why;
  }

  async #open(): Promise<void> {
    if (this.#asking) return;
    this.#asking = true;
    this.#triedAt = Date.now();
    try {
      const offer = await session.balcony.call("post", "/api/pairings", { body: {} });
      this.offer = offer;
      this.ends = endOf(offer.expiresAt, Date.now());
      this.problem = undefined;
    } catch (error) {
      this.offer = undefined;
      this.ends = undefined;
      this.problem = sayError(error);
    }
    this.#asking = false;
  }

  async #look(): Promise<void> {
    const { offer } = this;
    if (!offer || document.visibilityState === "hidden") return;
    try {
      const standing = await session.balcony.call("get", "/api/pairings/{offerId}", { path: { offerId: offer.offerId }, retry: false });
      if (this.offer !== offer) return;
      if (standing.state === "used") {
        this.came = standing.device ?? undefined;
        this.#drop();
      } else if (standing.state === "replaced") this.#cover("elsewhere");
      else if (standing.state === "ended") {
        this.wasTried = true;
        this.#drop();
      } else if (standing.state === "expired") this.#drop();
    } catch (error) {
      // A server that was started anew does not know it.
      if (error instanceof BalconyError && error.status === 404 && this.offer === offer) this.#drop();
    }
  }

  /** The next tick of the clock asks for another one, unless a device came in. */
  #drop(): void {
    this.offer = undefined;
    this.ends = undefined;
  }
}
