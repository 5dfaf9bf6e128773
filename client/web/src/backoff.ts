/** When to try again: exponential backoff with full jitter, bounded in total time. */

import type { Clock } from "./clock.ts";

const MOST_DOUBLINGS = 30;

export interface Backoff {
  /** For how long an outage is fought, in milliseconds. */
  totalMs: number;
  /** The first wait is up to this; each further one up to twice the one before. */
  baseMs: number;
  /** The longest wait. */
  capMs: number;
  /** Draws from [0, 1): full jitter, so that a crowd of clients does not come back at one moment. */
  random: () => number;
}

export const usualBackoff: Backoff = { totalMs: 60_000, baseMs: 200, capMs: 5_000, random: Math.random };

/** The tries of one outage; its time runs from when it is made. */
export class Outage {
  readonly #backoff: Backoff;
  readonly #clock: Clock;
  readonly #end: number;
  #tries = 0;

  constructor(backoff: Backoff, clock: Clock) {
    this.#backoff = backoff;
    this.#clock = clock;
    this.#end = clock.now() + backoff.totalMs;
  }

  /** Milliseconds until it is given up; 0 or below when it is. */
  get leftMs(): number {
    return this.#end - this.#clock.now();
  }

  /** Returns how long to wait before the next try, at least as long as the server asked for; null to give up. */
  nextWait(atLeastMs = 0): number | null {
    const longest = Math.min(this.#backoff.capMs, this.#backoff.baseMs * 2 ** Math.min(this.#tries, MOST_DOUBLINGS));
    this.#tries += 1;
    const wait = Math.max(atLeastMs, longest * this.#backoff.random());
    return wait < this.leftMs ? wait : null;
  }
}
