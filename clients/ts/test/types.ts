// What the compiler must accept, and what it must refuse. Checked by `npm run check`; never run.

import { BalconyError, type Device, type ErrorCode, type Health, type Overview, type Stream, StreamingService } from "@balcony/client";

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function is<_T extends true>(): void {}

export async function accepted(balcony: StreamingService, signal: AbortSignal): Promise<void> {
  const { devices } = await balcony.call("get", "/api/devices");
  is<Same<typeof devices, Device[]>>();
  const health = await balcony.call("get", "/api/health", { signal, timeout: 5_000 });
  is<Same<typeof health, Health>>();
  const renamed = await balcony.call("patch", "/api/devices/{deviceId}", { path: { deviceId: "d" }, body: { name: "Pixel" }, signal });
  is<Same<typeof renamed, Device>>();
  const revoked = await balcony.call("delete", "/api/devices/{deviceId}", { path: { deviceId: "d" } });
  is<Same<typeof revoked, undefined>>();
  const overview = await balcony.call("put", "/api/pause", { body: { paused: true } });
  is<Same<typeof overview, Overview>>();
  await balcony.call("post", "/api/torrents/magnet", { body: new Uint8Array(3), contentType: "application/x-bittorrent" });
  const report = await balcony.call("get", "/api/doctor/report");
  is<Same<typeof report, string>>();
  await balcony.call("delete", "/api/history");
  const stream = await balcony.startStream("magnet:?xt=…", { quality: "720p", capabilities: { video: ["h264", "hevc"] } }, { signal });
  is<Same<typeof stream, Stream>>();
  const seconds: string | number | undefined = stream.messageParams["seconds"];
  void seconds;
}

export async function refused(balcony: StreamingService): Promise<void> {
  // @ts-expect-error no such path
  await balcony.call("get", "/api/nothing");
  // @ts-expect-error the path knows no such method
  await balcony.call("put", "/api/devices");
  // @ts-expect-error a name in the path is missing
  await balcony.call("get", "/api/stream/status/{streamId}");
  // @ts-expect-error a name in the path is misspelt
  await balcony.call("get", "/api/stream/status/{streamId}", { path: { id: "x" } });
  // @ts-expect-error the body is missing
  await balcony.call("post", "/api/torrents/inspect", {});
  // @ts-expect-error the body has another shape
  await balcony.call("post", "/api/torrents/inspect", { body: { magnet: "magnet:?" } });
  // @ts-expect-error a get has no body
  await balcony.call("get", "/api/devices", { body: {} });
  // @ts-expect-error events are watched
  await balcony.call("get", "/api/events");
  // @ts-expect-error no such quality
  await balcony.startStream("magnet:?", { quality: "721p" });
  // @ts-expect-error the answer of a 204 is nothing
  (await balcony.call("delete", "/api/devices/{deviceId}", { path: { deviceId: "d" } })).id;
  // @ts-expect-error no such code
  const code: ErrorCode = "teapot";
  // @ts-expect-error codes are checked
  if (new BalconyError(code).code === "teapot") return;
}
