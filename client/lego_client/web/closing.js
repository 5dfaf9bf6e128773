// What the end of a connection means; docs/gateway.md has the table.

const FINAL = new Set([1002, 1007, 1009, 4003, 4004, 4007, 4010, 4016]);

/**
 * Returns when to come back after a connection has closed, in milliseconds; null for not by itself.
 * @param {number} code
 * @param {string} reason
 */
export function comeBackAfter(code, reason) {
  if (code === 1000 || FINAL.has(code)) return null;
  return Number(/^retry-after-ms=(\d+)/.exec(reason)?.[1] ?? 1000);
}

/** Returns what the server says of why, in a sentence. */
export function sentenceOf(code, reason) {
  return reason.replace(/^retry-after-ms=\d+ /, "") || (code === 1006 ? "the connection was lost" : `closed (${code})`);
}
