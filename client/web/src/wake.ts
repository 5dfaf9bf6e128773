/** Keeps the screen on while the camera is: nobody touches a phone that shows how to do something with both hands. */
export class Wake {
  #wanted = false;
  #lock: WakeLockSentinel | null = null;

  constructor() {
    // The browser lets it go with the page's visibility.
    document.addEventListener("visibilitychange", () => void this.#apply());
  }

  /** Says whether the screen is to stay on. */
  want(wanted: boolean): void {
    this.#wanted = wanted;
    void this.#apply();
  }

  async #apply(): Promise<void> {
    if (!this.#wanted) {
      await this.#lock?.release();
      this.#lock = null;
    } else if (!document.hidden && (this.#lock === null || this.#lock.released)) {
      try {
        this.#lock = (await navigator.wakeLock?.request("screen")) ?? null;
        if (!this.#wanted) await this.#apply(); // the camera was turned off meanwhile
      } catch {
        // A battery that runs low forbids it; the screen then goes off as it always does.
      }
    }
  }
}
