// Who this page is to the server: where the server is, the token, the device and its person.
import { BalconyError, StreamingService, type Device, type Health } from "@balcony/client";
import { live } from "./live.svelte";
import { local } from "./local";

declare global {
  interface Window {
    /** Put here by the desktop window before any script of the page runs. */
    __BALCONY__?: { server: string; token: string };
  }
}

const TOKEN = "balcony.token";
/** How long until a server that does not answer is asked again, in milliseconds. */
const AGAIN = 4000;

/** `opening`: not known yet. `strange`: no token. `paired`: the token is good. `revoked`: it was good once. `unreachable`: nobody answers. */
export type SessionState = "opening" | "strange" | "paired" | "revoked" | "unreachable";

class Session {
  state = $state<SessionState>("opening");
  /** The device that this browser is. */
  me = $state<Device>();
  /** What the server says of itself. */
  health = $state<Health>();
  /** When an unreachable server is asked next (`Date.now()`). */
  retryAt = $state<number>();
  /** The client. */
  readonly balcony = new StreamingService({ baseUrl: this.server, token: this.token });
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Whether this is the desktop window. */
  get isWindow(): boolean {
    return window.__BALCONY__ !== undefined;
  }

  /** Whether it may do what the owner may. */
  get isOwner(): boolean {
    return this.me?.admin === true;
  }

  /** Where the server is: told by the window, else where this page came from. */
  get server(): string {
    return window.__BALCONY__ ? `http://${window.__BALCONY__.server}` : location.origin;
  }

  /** The server's name as its owner gave it. */
  get name(): string {
    return this.health?.name ?? "Balcony";
  }

  private get token(): string | undefined {
    return window.__BALCONY__?.token ?? local.get(TOKEN);
  }

  /** Finds out where it stands; asks again by itself while nobody answers. */
  async open(): Promise<void> {
    clearTimeout(this.#timer);
    this.retryAt = undefined;
    try {
      this.health = await this.balcony.checkHealth();
      const { token } = this;
      if (!token) {
        this.state = "strange";
        return;
      }
      // Another tab may have been paired meanwhile.
      this.balcony.configure({ token });
      this.me = await this.balcony.call("get", "/api/devices/me");
      this.state = "paired";
      live.follow(this.balcony, () => this.lost());
    } catch (error) {
      if (error instanceof BalconyError && error.status === 401) return this.lost();
      this.state = this.token ? "unreachable" : "strange";
      this.retryAt = Date.now() + AGAIN;
      this.#timer = setTimeout(() => void this.open(), AGAIN);
    }
  }

  /** A phone has just been given its token. */
  async paired(token: string): Promise<void> {
    local.set(TOKEN, token);
    this.balcony.configure({ token });
    await this.open();
  }

  /** The server knows this device no longer. */
  lost(): void {
    live.end();
    this.forget();
    this.state = "revoked";
  }

  /** From `revoked` to the beginning. */
  again(): void {
    this.state = "strange";
  }

  private forget(): void {
    if (!this.isWindow) local.drop(TOKEN);
    this.me = undefined;
  }
}

/** The one session of this page. */
export const session = new Session();
