import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { BalconyError } from "../src/index.js";
import { backoff, Budget, sleep, within } from "../src/waiting.js";
import { outcome, pass, seeded } from "./fakes.js";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  expect(vi.getTimerCount(), "timers are left").toBe(0);
  vi.useRealTimers();
});

describe("back-off", () => {
  it.each([
    [0, 500],
    [1, 1_000],
    [2, 2_000],
    [5, 16_000],
    [6, 30_000],
    [60, 30_000],
    [1e9, 30_000],
  ])("after %i failures lasts up to %i ms", (failures, most) => {
    expect(backoff(failures, 500, 30_000, () => 0)).toBe(0);
    expect(backoff(failures, 500, 30_000, () => 0.5)).toBe(most / 2);
    expect(backoff(failures, 500, 30_000, () => 1)).toBe(most);
  });

  it("spreads over the whole time", () => {
    const random = seeded(7);
    const waits = Array.from({ length: 1_000 }, () => backoff(3, 1_000, 30_000, random));
    for (let part = 0; part < 8; part++) {
      const inside = waits.filter((wait) => wait >= part * 1_000 && wait < (part + 1) * 1_000).length;
      expect(inside, `part ${part}`).toBeGreaterThan(80);
    }
  });
});

describe("the budget", () => {
  it("gives what it has, and fills with time up to its capacity", async () => {
    const budget = new Budget(3, 0.5);
    const taken = (): number => {
      let count = 0;
      while (count < 100 && budget.take()) count++;
      return count;
    };
    expect(taken()).toBe(3);
    expect(taken()).toBe(0);
    await pass(1_999);
    expect(taken()).toBe(0);
    await pass(1);
    expect(taken()).toBe(1);
    await pass(5_000);
    expect(taken()).toBe(2);
    await pass(3_600_000);
    expect(taken()).toBe(3);
  });

  it("bears a clock that is set back", () => {
    const budget = new Budget(1, 1);
    expect(budget.take()).toBe(true);
    vi.setSystemTime(0);
    expect(budget.take()).toBe(false);
  });
});

describe("sleeping", () => {
  it("ends in time", async () => {
    const end = new AbortController();
    const slept = outcome(sleep(1_000, end.signal));
    await pass(999);
    expect(slept.done).toBe(false);
    await pass(1);
    expect(slept).toEqual({ done: true, value: undefined });
  });

  it("ends at once when it is called off, before or within", async () => {
    const end = new AbortController();
    const slept = outcome(sleep(1_000, end.signal));
    await pass(10);
    end.abort();
    await pass(0);
    expect(slept.error).toMatchObject({ code: "aborted" });
    await expect(sleep(1_000, end.signal)).rejects.toMatchObject({ code: "aborted" });
  });
});

describe("work within a time", () => {
  it("is answered", async () => {
    await expect(within(100, undefined, async () => 7)).resolves.toBe(7);
    await expect(within(Infinity, undefined, async () => 7)).resolves.toBe(7);
    const slow = outcome(within(2 ** 31, undefined, () => sleep(5_000)));
    await pass(5_000);
    expect(slow).toEqual({ done: true, value: undefined });
  });

  it("fails as it fails", async () => {
    const failure = new RangeError("x");
    await expect(within(100, undefined, () => Promise.reject(failure))).rejects.toBe(failure);
  });

  it("times out, and learns of it, even when it does not care", async () => {
    let its: AbortSignal | undefined;
    const late = outcome(
      within(100, undefined, (signal) => {
        its = signal;
        return new Promise(() => {});
      }),
    );
    await pass(100);
    expect(late.error).toMatchObject({ code: "timeout" });
    expect(its?.aborted).toBe(true);
  });

  it("is called off with the caller's reason as cause", async () => {
    const end = new AbortController();
    const off = outcome(within(100, end.signal, () => new Promise(() => {})));
    end.abort(new Error("enough"));
    await pass(0);
    expect(off.error).toBeInstanceOf(BalconyError);
    expect(off.error).toMatchObject({ code: "aborted", cause: { message: "enough" } });
    const work = vi.fn();
    await expect(within(100, end.signal, work)).rejects.toMatchObject({ code: "aborted" });
    expect(work).not.toHaveBeenCalled();
  });

  it("tells an outer time-out from being called off", async () => {
    const late = outcome(within(50, undefined, (signal) => within(100, signal, () => new Promise(() => {}))));
    await pass(50);
    expect(late.error).toMatchObject({ code: "timeout" });
  });
});
