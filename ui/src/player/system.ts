// The rest of the device: it stays awake while a film plays, and its lock screen and keys know the film.

export interface Remote {
  title: string;
  from: string;
  play: () => void;
  pause: () => void;
  skip: (by: number) => void;
  seek: (to: number) => void;
}

/** Keeps the screen on between `keep(true)` and `keep(false)`. */
export class Awake {
  #lock: WakeLockSentinel | undefined;
  #wanted = false;
  readonly #seen = () => document.visibilityState === "visible" && void this.#take();

  constructor() {
    // The browser lets go when the page is hidden.
    document.addEventListener("visibilitychange", this.#seen);
  }

  keep(on: boolean): void {
    this.#wanted = on;
    if (on) void this.#take();
    else this.#release();
  }

  end(): void {
    document.removeEventListener("visibilitychange", this.#seen);
    this.keep(false);
  }

  async #take(): Promise<void> {
    if (!this.#wanted || (this.#lock && !this.#lock.released) || !("wakeLock" in navigator)) return;
    try {
      const lock = await navigator.wakeLock.request("screen");
      if (this.#wanted) this.#lock = lock;
      else void lock.release();
    } catch {
      // A low battery, or a browser that forbids it: the screen does what it always does.
    }
  }

  #release(): void {
    void this.#lock?.release().catch(() => {});
    this.#lock = undefined;
  }
}

const ACTIONS = ["play", "pause", "stop", "seekbackward", "seekforward", "seekto"] as const;

/** Tells the lock screen and the keys of a keyboard about the film; answers how to end that. */
export function remote(film: Remote): () => void {
  const session = navigator.mediaSession as MediaSession | undefined;
  if (!session) return () => {};
  session.metadata = new MediaMetadata({ title: film.title, artist: film.from });
  const handlers: Record<(typeof ACTIONS)[number], MediaSessionActionHandler> = {
    play: film.play,
    pause: film.pause,
    stop: film.pause,
    seekbackward: ({ seekOffset }) => film.skip(-(seekOffset ?? 10)),
    seekforward: ({ seekOffset }) => film.skip(seekOffset ?? 10),
    seekto: ({ seekTime }) => seekTime !== undefined && film.seek(seekTime),
  };
  for (const action of ACTIONS) act(session, action, handlers[action]);
  return () => {
    session.metadata = null;
    session.playbackState = "none";
    for (const action of ACTIONS) act(session, action, null);
  };
}

function act(session: MediaSession, action: MediaSessionAction, handler: MediaSessionActionHandler | null): void {
  try {
    session.setActionHandler(action, handler);
  } catch {
    // This browser does not know this action.
  }
}

/** Where the film is, for the lock screen. */
export function remotePlace(state: { playing: boolean; duration: number; time: number; rate: number }): void {
  const session = navigator.mediaSession as MediaSession | undefined;
  if (!session) return;
  session.playbackState = state.playing ? "playing" : "paused";
  if (!(state.duration > 0)) return;
  session.setPositionState?.({ duration: state.duration, position: Math.min(state.duration, Math.max(0, state.time)), playbackRate: state.rate || 1 });
}
