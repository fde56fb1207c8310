// The real program, in folders of its own. SERVER_UNDER_TEST names it.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { StreamingService } from "../../src/index.js";
import { start } from "../../../../tests/phone/balcony.js";

/** Milliseconds. The mock makes its film before it listens. */
const STARTS_WITHIN = 120_000;

export interface Real {
  base: string;
  token: string;
  /** A service with the owner's token. */
  owner: StreamingService;
  log: () => string;
  /** Ends in order; answers the exit code. */
  end: () => Promise<number | null>;
}

/** Starts a server in a folder; in one that was there before, it goes on from there. */
export async function startIn(folder: string, ...more: string[]): Promise<Real> {
  const server = await start(folder, { more, within: STARTS_WITHIN } as Parameters<typeof start>[1]);
  const base = `http://${server.http}`;
  const owner = new StreamingService({ baseUrl: base, token: server.token });
  return { base, token: server.token, owner, log: server.log, end: () => server.end() as Promise<number | null> };
}

export async function startReal(...more: string[]): Promise<Real> {
  const folder = await mkdtemp(join(tmpdir(), "balcony-client-"));
  const server = await startIn(folder, ...more).catch(async (error: unknown) => {
    await rm(folder, { recursive: true, force: true });
    throw error;
  });
  const end = async (): Promise<number | null> => {
    const code = await server.end();
    await rm(folder, { recursive: true, force: true });
    return code;
  };
  return { ...server, end };
}

/** Waits until something is so, and fails with what it was instead. */
export async function until(what: () => boolean, seen: () => unknown, within = 15_000): Promise<void> {
  const deadline = Date.now() + within;
  while (!what()) {
    if (Date.now() > deadline) throw new Error(`it does not come about: ${JSON.stringify(seen(), null, 1)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Whether the first segment of each kind of rendition can be fetched, as a player does it: with no header. */
export async function plays(streamUrl: string): Promise<number> {
  const text = async (url: string): Promise<string> => {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(`${answer.status} ${url}`);
    return answer.text();
  };
  const uris = (playlist: string): string[] => playlist.split("\n").filter((line) => line && !line.startsWith("#"));
  const master = await text(streamUrl);
  const media = new URL(uris(master)[0] as string, streamUrl);
  const playlist = await text(media.href);
  const segment = await fetch(new URL(uris(playlist)[0] as string, media));
  if (!segment.ok) throw new Error(`${segment.status} of the first segment`);
  return (await segment.arrayBuffer()).byteLength;
}
