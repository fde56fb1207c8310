// Adding films, stopping them, and starting one again. Whoever adds something at the computer sees it on the home page.
import { BalconyError, type Quality, type StartOptions, type Stream } from "@balcony/client";
import { capabilities } from "$lib/capabilities";
import { linkOf } from "$lib/link";
import { live } from "$lib/live.svelte";
import { router } from "$lib/router.svelte";
import { session } from "$lib/session.svelte";
import { magnetIn } from "$lib/shared";
import { toasts } from "$lib/toasts.svelte";
import { say, sayError } from "$lib/words";

/** A `.torrent` larger than that is none that the server takes. Bytes. */
const LARGEST = 8 * 1024 * 1024;

class Films {
  /** How many are being added. */
  adding = $state(0);
  /** Why the last one was not added. */
  problem = $state<string>();
  /** Links of the films that were started from this page: they know trackers that an info hash does not. */
  readonly #links = new Map<string, { magnet: string; options: StartOptions }>();

  /** Adds a magnet link, or the one that stands in a text. Answers whether it was added. */
  async addText(text: string): Promise<boolean> {
    const magnet = magnetIn(text);
    if (!magnet) {
      this.problem = say("notMagnet");
      return false;
    }
    return this.#try(() => this.start(magnet));
  }

  /** Adds a `.torrent`: the server makes its magnet link. */
  async addFile(file: File): Promise<boolean> {
    return this.#try(async () => {
      if (file.size > LARGEST) throw new BalconyError("too_large");
      const body = await file.arrayBuffer();
      const { magnetLink } = await session.balcony.call("post", "/api/torrents/magnet", { body, contentType: "application/x-bittorrent" });
      return this.start(magnetLink);
    });
  }

  /** Adds what was dropped onto the page, or pasted into it outside of any field. Answers whether there was anything to add. */
  take(data: DataTransfer): boolean {
    const files = [...data.files].filter((file) => file.name.toLowerCase().endsWith(".torrent") || file.type === "application/x-bittorrent");
    const text = data.getData("text/uri-list") || data.getData("text/plain");
    const magnet = magnetIn(text);
    if (files.length === 0 && !magnet) return false;
    for (const file of files) void this.addFile(file);
    if (files.length === 0 && magnet) void this.addText(magnet);
    return true;
  }

  async start(magnet: string, options: StartOptions = {}): Promise<Stream> {
    // Whatever is added here is played here, if anywhere.
    const stream = await session.balcony.startStream(magnet, { ...options, capabilities: await capabilities() });
    this.#links.set(stream.streamId, { magnet, options });
    live.streams.set(stream.streamId, stream);
    return stream;
  }

  /** Whether it was started by the device that looks at it, which alone can start it again. */
  isOwn(stream: Stream): boolean {
    return !stream.device || stream.device.id === session.me?.id;
  }

  /** Stops it. One that was started here can be had back. */
  async stop(stream: Stream): Promise<void> {
    const title = stream.title ?? say("untitled");
    try {
      await session.balcony.stopStream(stream.streamId);
      live.streams.delete(stream.streamId);
      toasts.show(say("stopped", { title }), this.isOwn(stream) ? { label: say("undo"), act: () => void this.again(stream) } : undefined);
    } catch (error) {
      // Whoever was faster: it is stopped.
      if (error instanceof BalconyError && error.status === 404) live.streams.delete(stream.streamId);
      else toasts.show(sayError(error));
    }
  }

  /** Starts it again, as it was asked for. */
  async again(stream: Stream): Promise<void> {
    try {
      const { magnet, options } = await this.#linkOf(stream);
      await this.start(magnet, options);
      if (stream.status === "error") await session.balcony.stopStream(stream.streamId).then(() => live.streams.delete(stream.streamId), () => undefined);
    } catch (error) {
      toasts.show(sayError(error));
    }
  }

  async #linkOf(stream: Stream): Promise<{ magnet: string; options: StartOptions }> {
    const known = this.#links.get(stream.streamId);
    if (known) return known;
    const options = { quality: stream.quality as Quality, ...(typeof stream.fileIndex === "number" && { fileIndex: stream.fileIndex }) };
    return { magnet: await linkOf(stream.infoHash), options };
  }

  async #try(work: () => Promise<Stream>): Promise<boolean> {
    this.adding += 1;
    this.problem = undefined;
    if (router.route.page !== "") router.go("/");
    try {
      await work();
      return true;
    } catch (error) {
      this.problem = sayError(error);
      return false;
    } finally {
      this.adding -= 1;
    }
  }
}

/** The films of the computer's pages. */
export const films = new Films();
