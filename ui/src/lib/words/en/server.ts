// What the server says by key or code.
import type { Catalogue } from ".";

const ordinals = ["First", "Second", "Third", "Fourth", "Fifth", "Sixth"];

export const messages: Catalogue["messages"] = {
  starting: "Starting",
  queued: (told) => {
    const place = told.n("place");
    const ahead = place - 1;
    const rank = ordinals[ahead] ? `${ordinals[ahead]} in the queue.` : `Number ${place} in the queue.`;
    return ahead < 1 ? rank : `${rank} ${ahead === 1 ? "One other film goes" : `${told.n("place") - 1} other films go`} first.`;
  },
  queued_for_encoder: (told) =>
    told.n("place") > 1
      ? `Waiting to be converted: number ${told.whole("place")} (${told.duration("seconds")})`
      : `Waiting to be converted: next (${told.duration("seconds")})`,
  paused: "Paused by the owner of this computer",
  no_space: (told) => `The computer’s disk is full. It goes on when there is room (${told.duration("seconds")})`,
  looking_for_peers: (told) => `Looking for peers (${told.duration("seconds")})`,
  asking_for_metadata: (told) => `Asking ${told.whole("peers")} peers what is in it (${told.duration("seconds")})`,
  connecting: (told) => `Connecting to those who share it (${told.duration("seconds")})`,
  waiting_for_bytes: (told) => `Waiting for the first bytes (${told.duration("seconds")})`,
  reading_index: "Reading the film’s table of contents",
  probing: "Looking at picture and sound",
  buffering: (told) => `Fetching the beginning: ${told.percent("percent")} at ${told.speed("speed")}`,
  converting: (told) => `Converting the first seconds (${told.duration("seconds")})`,
  converting_waits_for_bytes: (told) => `Waiting for bytes of the film to convert (${told.duration("seconds")})`,
  playable: "Ready",
  playable_waits_for_bytes: (told) => `Ready as far as it is here. Waiting for the rest (${told.duration("seconds")})`,
  playable_waits_for_encoder: (told) => `Ready. The next part waits to be converted (${told.duration("seconds")})`,
  playable_waits_for_conversion: (told) => `Ready. The next part is still being converted (${told.duration("seconds")})`,
  playable_converts_slowly: (told) => `Ready, but this computer converts at only ${told.whole("percent")} % of the film's speed. Choose a smaller picture`,
  playable_asleep: "Ready. The rest is fetched when you watch",
  complete: "Ready, all here",
  stopped: "Stopped",
  expired: "Its time was over, so it was removed",
};

export const whys: Catalogue["whys"] = {
  copy: (told) => `Copied. ${told.t("why")}.`,
};

export const findings: Catalogue["findings"] = {};

export const failures: Catalogue["failures"] = {
  no_peers: { title: "Nobody shares this film right now" },
  torrent_failed: { title: "This film cannot be fetched" },
  conversion_failed: { title: "This film cannot be converted" },
  no_space: { title: "No room for this film" },
  not_playable: { title: "This cannot be played" },
  unsafe_torrent: { title: "This link was refused" },
};

export const errors: Catalogue["errors"] = {
  network: (told) => `${told.server} does not answer.`,
  timeout: (told) => `${told.server} does not answer.`,
  bad_magnet: "That is not a magnet link. It begins with “magnet:”.",
  unauthenticated: "This device is no longer paired.",
  too_many_requests: (told) => `Too many questions in a short time. Try again in ${Math.max(1, told.seconds)} s.`,
  queue_full: (told) => `Enough films wait already. Try again in ${Math.max(1, told.seconds)} s.`,
  offer_expired: "This code has ended. The computer shows a new one.",
  not_found: "That is not there any more.",
};
