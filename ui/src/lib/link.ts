// The link of a stream, for starting its film again. It names trackers and peers, without which a film may be found by nobody.
import { history } from "./history.svelte";

/** Links of the films that were started from this page, by info hash. */
const links = new Map<string, string>();

/** Keeps the link that a stream was started with. */
export function keepLink(infoHash: string, magnet: string): void {
  links.set(infoHash, magnet);
}

/** The link that a film was asked for with. What nobody remembers is asked for by its hash alone. */
export async function linkOf(infoHash: string): Promise<string> {
  const find = () => links.get(infoHash) ?? history.films.find((film) => film.infoHash === infoHash)?.magnetLink;
  if (!find()) await history.read();
  return find() ?? `magnet:?xt=urn:btih:${infoHash}`;
}
