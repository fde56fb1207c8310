import { describe, expect, it } from "vitest";

import { asError, fromAnswer } from "../src/error.js";
import { BalconyError } from "../src/index.js";

const body = (code: string): string => JSON.stringify({ code, title: "T", detail: "D", traceId: "t-1", status: 0, type: `/problems/${code}` });
const headers = (retryAfter?: string): Headers => new Headers(retryAfter === undefined ? {} : { "retry-after": retryAfter });

describe("an answer that is an error", () => {
  it.each([
    [400, "bad_request", false],
    [400, "bad_magnet", false],
    [401, "unauthenticated", false],
    [403, "forbidden", false],
    [404, "not_found", false],
    [405, "method_not_allowed", false],
    [408, "bad_request", false],
    [409, "conflict", false],
    [409, "no_space", false],
    [410, "offer_expired", false],
    [413, "too_large", false],
    [415, "unsupported_media_type", false],
    [416, "range_not_satisfiable", false],
    [421, "wrong_host", false],
    [422, "invalid", false],
    [422, "unsafe_torrent", false],
    [422, "not_playable", false],
    [422, "no_peers", false],
    [429, "too_many_requests", false],
    [429, "queue_full", false],
    [500, "internal", true],
    [503, "segment_late", true],
  ])("%i %s", (status, code, transient) => {
    const error = fromAnswer(status, body(code), headers());
    expect(error).toBeInstanceOf(BalconyError);
    expect(error).toBeInstanceOf(Error);
    expect(error).toMatchObject({ name: "BalconyError", status, code, title: "T", detail: "D", message: "D", traceId: "t-1", transient });
    expect(error.retryAfter).toBeUndefined();
  });

  it.each([
    [400, "bad_request"],
    [401, "unauthenticated"],
    [403, "forbidden"],
    [404, "not_found"],
    [409, "conflict"],
    [418, "bad_request"],
    [422, "invalid"],
    [429, "too_many_requests"],
    [500, "internal"],
    [502, "network"],
    [503, "network"],
    [504, "network"],
    [520, "internal"],
  ])("%i that is no problem of ours is %s", (status, code) => {
    for (const text of ["", "<html>Bad gateway</html>", "null", "[]", '"text"', '{"code":"teapot"}', '{"code":7}', '{"code":"toString"}']) {
      const error = fromAnswer(status, text, headers());
      expect(error, text).toMatchObject({ status, code });
      expect(error.message, text).not.toBe("");
    }
  });

  it.each([
    ["7", 7],
    [" 0 ", 0],
    ["99999999999999", 86_400],
    ["-1", undefined],
    ["soon", undefined],
    ["", undefined],
  ])("Retry-After: %s", (header, expected) => {
    expect(fromAnswer(429, body("queue_full"), headers(header)).retryAfter).toBe(expected);
  });

  it("understands a date in Retry-After", () => {
    const error = fromAnswer(429, "", headers(new Date(Date.now() + 5_000).toUTCString()));
    expect(error.retryAfter).toBeGreaterThan(3);
    expect(error.retryAfter).toBeLessThanOrEqual(5);
    expect(fromAnswer(429, "", headers("Mon, 01 Jan 2001 00:00:00 GMT")).retryAfter).toBe(0);
  });
});

describe("what was thrown", () => {
  it("is ours already, or a failure of the line", () => {
    const ours = new BalconyError("timeout");
    expect(asError(ours)).toBe(ours);
    const failed = new TypeError("fetch failed");
    expect(asError(failed)).toMatchObject({ code: "network", status: 0, cause: failed, transient: true });
  });

  it("says something in each case", () => {
    for (const code of ["network", "timeout", "aborted", "stopped", "mixed_content"] as const) {
      const error = new BalconyError(code);
      expect(error.title).not.toBe(code);
      expect(error.detail.length).toBeGreaterThan(5);
      expect(error.message).toBe(error.detail);
    }
    expect(new BalconyError("forbidden").message).toBe("forbidden");
  });
});
