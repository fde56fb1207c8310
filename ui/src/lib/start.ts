// From a link to the page of its stream.
import type { Quality } from "@balcony/client";
import { capabilities } from "./capabilities";
import { loadPlayer } from "../player/load";
import { keepLink } from "./link";
import { preferences } from "./preferences.svelte";
import { router } from "./router.svelte";
import { session } from "./session.svelte";

/** Starts a film and shows its page. */
export async function start(magnet: string, options: { fileIndex?: number | null | undefined; quality?: Quality } = {}): Promise<void> {
  const { fileIndex, quality } = options;
  const method = preferences.method === "auto" ? undefined : preferences.method;
  const wishes = { ...(typeof fileIndex === "number" && { fileIndex }), ...(quality && { quality }), ...(method && { method }) };
  const starting = session.balcony.startStream(magnet, { ...wishes, capabilities: await capabilities() });
  // It comes while the computer finds the film. What fails now is tried again where it is needed.
  void loadPlayer().catch(() => {});
  const stream = await starting;
  keepLink(stream.infoHash, magnet);
  router.go(`/stream/${stream.streamId}`, { replace: router.route.page === "files" || router.route.page === "add" });
}

/** The sample film. The computer makes it when it is asked for first, which takes some seconds. */
export async function startSample(): Promise<void> {
  const { magnetLink } = await session.balcony.call("get", "/api/sample", { timeout: 300_000 });
  await start(magnetLink);
}
