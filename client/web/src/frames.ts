/** Frames on their way: within the server's credits, each under an id of the present session, the newest view first. */

import type { EncodedFrame } from "./encoding.ts";

// A server keeps the newest few; what it may have forgotten is sent again when it is asked about.
const FRAMES_KEPT = 4;

/** Gives frames their ids and knows which of them the server's session has. */
export class FrameWindow {
  readonly #send: (id: bigint, frame: EncodedFrame) => boolean;
  readonly #held = new Map<EncodedFrame, bigint>();
  #onWay: bigint[] = [];
  #credits = 0;
  #acknowledged = 0n;
  #open = false;
  #nextId = 1n;
  /** The frame asked about, while there is no room for it. */
  #waiting: (() => void) | null = null;

  /** Takes what sends a frame and returns whether it went out. */
  constructor(send: (id: bigint, frame: EncodedFrame) => boolean) {
    this.#send = send;
  }

  /** Whether a frame may be sent now. */
  get hasRoom(): boolean {
    return this.#open && (this.#credits === 0 || this.#onWay.length < this.#credits);
  }

  /** A stream is open, with so many credits (0: without limit); a new session has no frames. */
  connected(credits: number, resumed: boolean): void {
    this.#credits = credits;
    this.#open = true;
    if (!resumed) this.#held.clear();
    this.#wake();
  }

  /** The stream broke: whatever has not been acknowledged may have been lost with it. */
  lost(): void {
    this.#open = false;
    this.#onWay = [];
    for (const [frame, id] of this.#held) if (id > this.#acknowledged) this.#held.delete(frame);
    this.#waiting = null;
  }

  /** The server has this frame and all before it. */
  received(id: bigint): void {
    if (id > this.#acknowledged) this.#acknowledged = id;
    this.#onWay = this.#onWay.filter((each) => each > id);
    this.#wake();
  }

  /** The server would not have a frame: it must be sent again before it is asked about. */
  forget(frame: EncodedFrame): void {
    this.#held.delete(frame);
  }

  /** Sends a view if there is room, and returns whether it went; one that does not go is worth nothing later. */
  offer(frame: EncodedFrame): boolean {
    return this.hasRoom && this.#transmit(frame);
  }

  /**
   * Calls back with the id that a frame has in this session, once it is sent; never if the stream breaks before, or
   * another frame takes the place of one that waits for room.
   */
  ensure(frame: EncodedFrame, then: (id: bigint) => void): void {
    this.giveUp();
    const known = this.#held.get(frame);
    if (known !== undefined) then(known);
    else if (!this.hasRoom) this.#waiting = () => this.ensure(frame, then);
    else if (this.#transmit(frame)) then(this.#held.get(frame)!);
  }

  /** A frame that still waits for room is not sent any more. */
  giveUp(): void {
    this.#waiting = null;
  }

  #transmit(frame: EncodedFrame): boolean {
    const id = this.#nextId;
    if (!this.#send(id, frame)) return false;
    this.#nextId += 1n;
    this.#held.delete(frame);
    this.#held.set(frame, id);
    for (const oldest of this.#held.keys()) {
      if (this.#held.size <= FRAMES_KEPT) break;
      this.#held.delete(oldest);
    }
    if (this.#credits) this.#onWay.push(id);
    return true;
  }

  #wake(): void {
    this.#waiting?.();
  }
}
