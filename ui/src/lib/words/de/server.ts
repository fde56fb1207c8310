// What the server says by key or code.
import type { Catalogue } from "../en";

export const messages: Catalogue["messages"] = {
  starting: "Beginnt",
  queued: (told) => {
    const ahead = told.n("place") - 1;
    const rank = `Platz ${told.whole("place")} in der Schlange.`;
    return ahead < 1 ? rank : `${rank} ${ahead === 1 ? "Ein anderer Film ist" : `${ahead} andere Filme sind`} vorher dran.`;
  },
  paused: "Vom Besitzer dieses Computers angehalten",
  looking_for_peers: (told) => `Sucht Peers (${told.duration("seconds")})`,
  asking_for_metadata: (told) => `Fragt ${told.whole("peers")} Peers, was darin ist (${told.duration("seconds")})`,
  connecting: (told) => `Verbindet sich mit denen, die ihn teilen (${told.duration("seconds")})`,
  waiting_for_bytes: (told) => `Wartet auf die ersten Bytes (${told.duration("seconds")})`,
  reading_index: "Liest das Inhaltsverzeichnis des Films",
  probing: "Sieht sich Bild und Ton an",
  buffering: (told) => `Lädt den Anfang: ${told.percent("percent")} mit ${told.speed("speed")}`,
  converting: (told) => `Wandelt die ersten Sekunden um (${told.duration("seconds")})`,
  converting_waits_for_bytes: (told) => `Wartet auf Bytes zum Umwandeln (${told.duration("seconds")})`,
  playable: "Bereit",
  playable_waits_for_bytes: (told) => `Bereit, soweit er da ist. Wartet auf den Rest (${told.duration("seconds")})`,
  complete: "Bereit, ganz da",
  stopped: "Beendet",
  expired: "Seine Zeit war um, er wurde entfernt",
};

export const whys: Catalogue["whys"] = {
  copy: "Unverändert. Dieses Gerät spielt Bild und Ton, wie sie sind.",
  video_codec: "Umgewandelt, weil dieses Gerät dieses Bildformat nicht spielt.",
  audio_codec: "Nur der Ton wird umgewandelt, weil dieses Gerät sein Format nicht spielt.",
  quality: "Umgewandelt, weil ein kleineres Bild gewünscht ist.",
  interlaced: "Umgewandelt, weil das Bild aus Halbbildern besteht.",
  rotated: "Umgewandelt, weil das Bild gedreht ist.",
  hdr: "Umgewandelt, weil dieses Gerät kein HDR zeigt.",
  no_index: "Umgewandelt, weil der Film kein Inhaltsverzeichnis hat.",
  sparse_key_frames: "Umgewandelt, weil man im Original kaum springen kann.",
  storage: "Umgewandelt, weil das Original anders abgelegt ist.",
};

export const findings: Catalogue["findings"] = {};

export const failures: Catalogue["failures"] = {
  no_peers: { title: "Niemand teilt diesen Film gerade", detail: "Es wurde gesucht und niemand gefunden. Seltene Filme kommen manchmal später zurück." },
  torrent_failed: { title: "Dieser Film kann nicht geladen werden", detail: "Der Torrent ist beschädigt. Ein anderer Link zum selben Film geht vielleicht." },
  conversion_failed: { title: "Dieser Film kann nicht umgewandelt werden", detail: "Das Original läuft vielleicht in einem anderen Player wie VLC." },
  no_space: { title: "Kein Platz für diesen Film", detail: "Der Speicher dieses Computers reicht nicht. Sein Besitzer kann Platz schaffen." },
  not_playable: { title: "In diesem Link ist kein Film", detail: "Keine seiner Dateien ist Bild oder Ton, das gespielt werden kann." },
  unsafe_torrent: { title: "Dieser Link wurde abgelehnt", detail: "Seine Angaben sind nicht vertrauenswürdig." },
};

export const errors: Catalogue["errors"] = {
  network: (told) => `${told.server} antwortet nicht.`,
  timeout: (told) => `${told.server} antwortet nicht.`,
  bad_magnet: "Das ist kein Magnet-Link. Er beginnt mit „magnet:“.",
  bad_request: "Das hat der Computer nicht verstanden.",
  unauthenticated: "Dieses Gerät ist nicht mehr gekoppelt.",
  forbidden: "Das darf nur der Besitzer dieses Computers.",
  not_found: "Das gibt es nicht mehr.",
  conflict: "Das geht gerade nicht.",
  no_space: "Auf dem Computer ist kein Platz mehr.",
  offer_expired: "Dieser Code ist abgelaufen. Der Computer zeigt einen neuen.",
  too_large: "Das ist zu groß.",
  invalid: "Das hat der Computer nicht verstanden.",
  unsafe_torrent: "Dieser Link wurde abgelehnt: Seine Angaben sind nicht vertrauenswürdig.",
  not_playable: "In diesem Link ist kein Film.",
  no_peers: "Niemand teilt das gerade.",
  too_many_requests: (told) => `Zu viele Fragen in kurzer Zeit. Noch einmal in ${Math.max(1, told.seconds)} s.`,
  queue_full: (told) => `Es warten schon genug Filme. Noch einmal in ${Math.max(1, told.seconds)} s.`,
  internal: "Im Computer ging etwas schief. Sein Protokoll sagt mehr.",
};
