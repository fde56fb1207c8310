// What the server tells while it happens: streams, devices, the overview; and whether it tells anything at all.
import type { Device, Overview, Stoppable, Stream, StreamingService } from "@balcony/client";
import { SvelteMap } from "svelte/reactivity";

export type Connection =
  /** Events come. */
  | { state: "open" }
  /** Nothing came yet. */
  | { state: "opening" }
  /** Events cannot be had; the server is asked now and then. */
  | { state: "polling" }
  /** The server is gone; asked again at this time (`Date.now()`). */
  | { state: "lost"; retryAt: number };

class Live {
  /** All streams that exist for this device, by id. */
  readonly streams = new SvelteMap<string, Stream>();
  /** All devices that exist for it, by id. */
  readonly devices = new SvelteMap<string, Device>();
  /** Devices that were paired while this page was open, newest last. */
  readonly newcomers = new SvelteMap<string, Device>();
  /** To the owner only. */
  overview = $state<Overview>();
  connection = $state<Connection>({ state: "opening" });
  /** Counts how often the server came back after it was gone. */
  returns = $state(0);
  #watch: Stoppable | undefined;

  /** Streams, newest first. */
  get list(): Stream[] {
    return [...this.streams.values()].sort((a, b) => b.createdAt.localeCompare(a.createdAt));
  }

  /** Follows a server until `end`; `lost` is called when the server does not know this device any more. */
  follow(balcony: StreamingService, lost: () => void): void {
    this.end();
    this.#watch = balcony.watch({
      stream: (stream) => void this.streams.set(stream.streamId, stream),
      gone: (id) => void this.streams.delete(id),
      device: (change) => {
        if (change.change === "revoked") {
          this.devices.delete(change.deviceId);
          this.newcomers.delete(change.deviceId);
          return;
        }
        this.devices.set(change.device.id, change.device);
        if (change.change === "paired") this.newcomers.set(change.device.id, change.device);
      },
      overview: (overview) => void (this.overview = overview),
      connection: (state, { retryIn }) => {
        if (state === "open" && this.connection.state === "lost") this.returns += 1;
        this.connection = state === "lost" ? { state, retryAt: Date.now() + (retryIn ?? 0) } : { state };
        if (state !== "lost") void this.#readDevices(balcony);
      },
      over: (error) => error?.status === 401 && lost(),
    });
  }

  /** The server was heard by another way: what it tells is asked for again at once. */
  heard(): void {
    // The client takes this for a network that is back.
    if (this.connection.state === "lost") dispatchEvent(new Event("online"));
  }

  /** Stops following and forgets. */
  end(): void {
    this.#watch?.stop();
    this.#watch = undefined;
    this.streams.clear();
    this.devices.clear();
    this.newcomers.clear();
    this.overview = undefined;
    this.connection = { state: "opening" };
  }

  async #readDevices(balcony: StreamingService): Promise<void> {
    try {
      const { devices } = await balcony.call("get", "/api/devices");
      this.devices.clear();
      for (const device of devices) this.devices.set(device.id, device);
    } catch {
      // The next snapshot asks again; what went wrong with the server is told by `connection`.
    }
  }
}

/** What happens at the server of this page. */
export const live = new Live();
