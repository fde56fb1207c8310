// The doctor's findings in the order in which somebody wants to read them.
import type { Finding } from "@balcony/client";

const RANK: Record<string, number> = { broken: 0, note: 1, good: 2 };
const rank = (finding: Pick<Finding, "level">) => RANK[finding.level] ?? 1;

/** What is broken first, then what needs a look, then what works; each in the server's order. */
export function sorted<F extends Pick<Finding, "level">>(findings: readonly F[]): F[] {
  return [...findings].sort((a, b) => rank(a) - rank(b));
}

/** How many there are of each level. */
export function tally(findings: readonly Pick<Finding, "level">[]): Record<"good" | "note" | "broken", number> {
  const counts = { good: 0, note: 0, broken: 0 };
  for (const { level } of findings) counts[level in counts ? level : "note"] += 1;
  return counts;
}
