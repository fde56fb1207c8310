// The seconds in the sentences go on by themselves, once a second, while somebody looks.

class Clock {
  now = $state(Date.now());

  constructor() {
    setInterval(() => {
      if (document.visibilityState === "visible") this.now = Date.now();
    }, 1000);
    document.addEventListener("visibilitychange", () => (this.now = Date.now()));
  }

  /** Whole seconds until a time, never below 0. */
  until(time: number): number {
    return Math.max(0, Math.ceil((time - this.now) / 1000));
  }
}

/** The one clock of this page. */
export const clock = new Clock();
