/** A connection that comes back: owns the WebSocket, reads it, resumes the session, and opens another when it breaks. */

import { type Backoff, Outage } from "./backoff.ts";
import type { Clock } from "./clock.ts";
import { type Cure, type Ending, readClose } from "./closing.ts";
import { type Draft, decode, encode } from "./proto/codec.ts";
import { GuideRequest, GuideResponse, type SessionStarted } from "./proto/messages.ts";

const OPEN_MS = 10_000; // for a server to answer when connecting
// A question that waits this long without a word from the server: the link may have died unnoticed. To open another
// costs nothing where the session is resumed.
const SILENCE_MS = 30_000;
const BARRED_TRIES = 3; // in a row, of a server that is well
const BARRED =
  "The server answers but opens no session: it is of another version, or something on the way lets no WebSockets through.";
const SESSION_OVER = 1000;
const NOT_UNDERSTOOD = 3003;

/** A connection, as this client uses a WebSocket. */
export interface Socket {
  send(data: Uint8Array<ArrayBuffer>): void;
  close(code?: number): void;
}

/** What happens to a connection. */
export interface SocketListener {
  opened(): void;
  /** Text is no message of this protocol. */
  message(data: ArrayBuffer | string): void;
  closed(code: number, reason: string): void;
}

/** Nobody answers, or not yet; there is a server, and it is well; or it says itself what stands in the way. */
export type Diagnosis = "absent" | "well" | { cure: Cure; why: string };

export interface LinkOptions {
  /** Opens a connection. */
  dial: (listener: SocketListener) => Socket;
  /** Finds out by other means why a connection never opened. */
  diagnose: () => Promise<Diagnosis>;
  backoff: Backoff;
  clock: Clock;
}

/** Whom the link tells what. */
export interface LinkListener {
  /** A stream is open; `resumed` says whether the session that was goes on, or another began. */
  connected(started: SessionStarted, resumed: boolean): void;
  /** A message of the session, each once. */
  received(response: GuideResponse): void;
  /** The stream broke or did not open; the link tries again after so many milliseconds. */
  waiting(afterMs: number, why: string): void;
  /** The server let the session end because nothing was asked; the link opens another when it is needed. */
  slept(): void;
  /** There will be no stream until somebody calls `connect` again. */
  ended(why: string, cure: Cure): void;
}

type Phase = "closed" | "opening" | "resuming" | "up" | "waiting";

export class Link {
  readonly #options: LinkOptions;
  readonly #listener: LinkListener;
  #phase: Phase = "closed";
  #socket: Socket | null = null;
  #outage: Outage | null = null;
  #cancelTimer = () => {};
  #cancelSilence = () => {};
  #expecting = false;
  #started: SessionStarted | null = null;
  #token = "";
  #received = 0n;
  #attempt = 0;
  #barred = 0;

  constructor(options: LinkOptions, listener: LinkListener) {
    this.#options = options;
    this.#listener = listener;
  }

  /** Whether there is a stream now. */
  get up(): boolean {
    return this.#phase === "up";
  }

  /** Whether it has a stream, or works on one. */
  get active(): boolean {
    return this.#phase !== "closed";
  }

  /** Opens a stream, now; nothing where there is one or one is being opened. */
  connect(): void {
    if (this.#phase === "waiting" || this.#phase === "closed") {
      if (this.#phase === "closed") this.#outage = null;
      this.#open();
    }
  }

  /** Drops the stream and opens another at once: for those who have reason to think it dead. */
  reconnect(): void {
    this.#drop();
    this.#outage = null;
    this.#open();
  }

  /** Ends everything. The session is over for the server, too. */
  close(): void {
    this.#drop(SESSION_OVER);
    this.#phase = "closed";
    this.forget();
  }

  /** Will not go on with the session that was: for another wearer, or another token. */
  forget(): void {
    this.#token = "";
    this.#received = 0n;
  }

  /** Sends a message if there is a stream; returns whether it went out, not whether it arrived. */
  send(message: Draft<typeof GuideRequest>): boolean {
    if (this.#phase !== "up" || this.#socket === null) return false;
    this.#write(message);
    return true;
  }

  /** Watches, while an answer is waited for, that something comes. */
  expect(something: boolean): void {
    this.#expecting = something;
    this.#watchSilence();
  }

  #watchSilence(): void {
    this.#cancelSilence();
    if (!this.#expecting || this.#phase !== "up") return;
    this.#cancelSilence = this.#options.clock.after(SILENCE_MS, () => {
      this.#lost({ kind: "again", afterMs: 0, why: "Nothing came from the server." });
    });
  }

  #open(): void {
    this.#cancelTimer();
    this.#phase = "opening";
    this.#attempt += 1;
    const attempt = this.#attempt;
    const current = () => attempt === this.#attempt && this.#socket !== null;
    let opened = false;
    try {
      this.#socket = this.#options.dial({
        opened: () => {
          opened = true;
          this.#barred = 0;
        },
        message: (data) => {
          if (current()) this.#message(data);
        },
        closed: (code, reason) => {
          if (!current()) return;
          if (opened) this.#lost(readClose(code, reason));
          else void this.#neverOpened();
        },
      });
    } catch {
      // The browser's own check of what is offered to the server: only the token can offend.
      this.#end("The token has characters that none has: copy it again.", "token");
      return;
    }
    this.#cancelTimer = this.#options.clock.after(OPEN_MS, () => {
      this.#lost({ kind: "again", afterMs: 0, why: "The server did not answer in time." });
    });
  }

  async #neverOpened(): Promise<void> {
    const attempt = this.#attempt;
    const found = await this.#options.diagnose();
    if (attempt !== this.#attempt || this.#socket === null) return;
    this.#barred = found === "well" ? this.#barred + 1 : 0;
    if (typeof found === "object") this.#lost({ kind: "refused", ...found });
    else if (this.#barred >= BARRED_TRIES) this.#lost({ kind: "refused", cure: "reload", why: BARRED });
    else this.#lost({ kind: "again", afterMs: 0, why: "The server cannot be reached." });
  }

  #message(data: ArrayBuffer | string): void {
    let response: GuideResponse;
    try {
      if (typeof data === "string") throw new Error("text");
      response = decode(GuideResponse, new Uint8Array(data));
    } catch {
      this.#end("The server sent something that is no message of this protocol.", "reload", NOT_UNDERSTOOD);
      return;
    }
    if (this.#phase === "up") {
      this.#outage = null;
      this.#watchSilence();
      if (response.sequence > 0n && response.sequence <= this.#received) return;
      if (response.sequence > this.#received) this.#received = response.sequence;
      this.#listener.received(response);
      return;
    }
    const started = response.sessionStarted;
    if (started === undefined) {
      this.#end("The server does not begin as this page knows it.", "reload", NOT_UNDERSTOOD);
      return;
    }
    if (this.#phase === "resuming") {
      const resumed = started.resumed;
      this.#begin(resumed ? started : (this.#started ?? started), resumed);
    } else if (this.#token && started.resumeToken) {
      this.#phase = "resuming";
      this.#started = started;
      this.#write({ resume: { token: this.#token, received: this.#received } });
    } else {
      this.#begin(started, false);
    }
  }

  #begin(started: SessionStarted, resumed: boolean): void {
    this.#cancelTimer();
    this.#phase = "up";
    this.#started = null;
    if (!resumed) this.#received = 0n;
    this.#token = started.resumeToken || (resumed ? this.#token : "");
    const { clock, backoff } = this.#options;
    // A stream that breaks at once, before anything came of it, is still the same outage.
    this.#cancelTimer = clock.after(backoff.capMs, () => {
      this.#outage = null;
    });
    this.#watchSilence();
    this.#listener.connected(started, resumed);
  }

  #lost(ending: Ending): void {
    const wasUp = this.#phase === "up";
    this.#drop();
    if (ending.kind === "refused") {
      this.#end(ending.why, ending.cure);
    } else if (ending.kind === "idle" && wasUp) {
      this.#phase = "closed";
      this.forget();
      this.#listener.slept();
    } else {
      const again = ending.kind === "again" ? ending : { afterMs: 0, why: "The server ended the session." };
      this.#outage ??= new Outage(this.#options.backoff, this.#options.clock);
      const wait = this.#outage.nextWait(again.afterMs);
      if (wait === null) {
        this.#end(again.why, "retry");
        return;
      }
      this.#phase = "waiting";
      this.#cancelTimer = this.#options.clock.after(wait, () => this.#open());
      this.#listener.waiting(wait, again.why);
    }
  }

  #end(why: string, cure: Cure, code?: number): void {
    this.#drop(code);
    this.#phase = "closed";
    this.#outage = null;
    this.#listener.ended(why, cure);
  }

  #drop(code?: number): void {
    this.#cancelTimer();
    this.#cancelSilence();
    const socket = this.#socket;
    this.#socket = null;
    if (socket === null) return;
    this.#attempt += 1; // nothing of it is heard any more
    socket.close(code);
  }

  #write(message: Draft<typeof GuideRequest>): void {
    this.#socket?.send(encode(GuideRequest, message));
  }
}
