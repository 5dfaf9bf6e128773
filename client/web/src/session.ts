/** One wearer's session: frames and the newest question up, events down, over connections that may break. */

import type { Clock } from "./clock.ts";
import type { Cure } from "./closing.ts";
import type { EncodedFrame } from "./encoding.ts";
import { FrameWindow } from "./frames.ts";
import { Link, type LinkListener, type LinkOptions } from "./link.ts";
import {
  Code,
  type GuidanceResult,
  type GuideResponse,
  type QueryError,
  type ServerInfo,
  type SessionStarted,
} from "./proto/messages.ts";

const MOST_RESTARTS = 5; // a question that takes its server down each time must not do so for ever
const MOST_RETRIES = 5; // of a server that has no room

/** What a question asks for beside its words; unset takes the model's default. */
export interface Wishes {
  model?: string;
  steps?: number;
  previewEvery?: number;
}

export interface Answer {
  text: string;
  frame: EncodedFrame;
  description: string;
  image: Uint8Array;
  width: number;
  height: number;
  totalMs: number;
  steps: number;
  seed: bigint;
  modelVersion: string;
}

export type SessionEvent =
  | { kind: "connecting" }
  | { kind: "connected"; server: ServerInfo; resumed: boolean }
  | { kind: "waiting"; afterMs: number; why: string }
  | { kind: "slept" }
  | { kind: "ended"; why: string; cure: Cure }
  /** Kept until there is a connection. */
  | { kind: "queued" }
  | { kind: "asked" }
  /** Its session was lost: what came so far counts no more. */
  | { kind: "restarted" }
  | { kind: "busy"; afterMs: number }
  | { kind: "described"; piece: string; done: boolean }
  | { kind: "painting"; step: number; steps: number; preview: Uint8Array }
  | { kind: "answered"; answer: Answer }
  | { kind: "failed"; why: string; cure: FailureCure };

/** What may help a question that failed: time, other words or another view, or another token. */
export type FailureCure = "again" | "words" | "token";

interface Question {
  text: string;
  frame: EncodedFrame;
  wishes: Wishes;
  /** Its id where it was asked last; 0 before that. */
  id: bigint;
  /** Session and stream it was asked in, by this client's own count. */
  session: number;
  stream: number;
  /** Whether anything came of it in that session. */
  heard: boolean;
  /** Whether it was sent twice under one id, as it may have been lost the first time. */
  repeated: boolean;
  restarts: number;
  retries: number;
  /** Calls off the next try, while a server without room is waited for. */
  pause: (() => void) | null;
}

export class Session {
  readonly #link: Link;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #tell: (event: SessionEvent) => void;
  readonly #frames: FrameWindow;
  #session = 0;
  #stream = 0;
  #nextId = 1n;
  #question: Question | null = null;
  /** Given up while there was no stream to say so. */
  #abandoned = 0n;
  #refusedFrame = "";
  #server: ServerInfo | null = null;

  constructor(options: LinkOptions, tell: (event: SessionEvent) => void) {
    this.#clock = options.clock;
    this.#random = options.backoff.random;
    this.#tell = tell;
    const listener: LinkListener = {
      connected: (started, resumed) => this.#connected(started, resumed),
      received: (response) => this.#received(response),
      waiting: (afterMs, why) => {
        this.#frames.lost();
        this.#tell({ kind: "waiting", afterMs, why });
      },
      slept: () => {
        this.#frames.lost();
        this.#tell({ kind: "slept" });
      },
      ended: (why, cure) => {
        this.#frames.lost();
        this.#tell({ kind: "ended", why, cure });
      },
    };
    this.#link = new Link(options, listener);
    this.#frames = new FrameWindow((id, frame) => this.#link.send({ frame: { frameId: id, image: frame.jpeg } }));
  }

  /** What the server runs; null before the first connection. */
  get server(): ServerInfo | null {
    return this.#server;
  }

  /** Whether a view that is offered now would be sent. */
  get wantsViews(): boolean {
    return this.#link.up && this.#frames.hasRoom;
  }

  /** Connects, or tries again now rather than later. */
  connect(): void {
    if (this.#link.up) return;
    this.#tell({ kind: "connecting" });
    this.#link.connect();
  }

  /** For those who have reason to think the connection dead: opens another, and resumes. */
  reconnect(): void {
    if (!this.#link.active) return;
    this.#frames.lost();
    this.#tell({ kind: "connecting" });
    this.#link.reconnect();
  }

  /** Ends the session. A question without an answer is kept, for a `connect` that may follow. */
  close(): void {
    this.#frames.lost();
    this.#link.close();
  }

  /** Begins anew under another token. */
  restart(): void {
    this.close();
    this.connect();
  }

  /** Sends a view that nobody asked about yet, so that an answer to a question about it comes sooner. */
  offer(frame: EncodedFrame): void {
    this.#frames.offer(frame);
  }

  /** Asks; a question still without an answer gives way. One asked without a connection waits for it. */
  ask(text: string, frame: EncodedFrame, wishes: Wishes): void {
    this.#question?.pause?.();
    this.#question = {
      text,
      frame,
      wishes,
      id: 0n,
      session: 0,
      stream: 0,
      heard: false,
      repeated: false,
      restarts: 0,
      retries: 0,
      pause: null,
    };
    if (this.#link.up) {
      this.#submit(this.#question);
      return;
    }
    this.#tell({ kind: "queued" });
    if (!this.#link.active) this.connect();
  }

  /** Gives the present question up, here and on the server. */
  cancel(): void {
    const question = this.#question;
    if (question === null) return;
    this.#forgetQuestion();
    if (question.id > 0n && !this.#sendCancel(question.id)) this.#abandoned = question.id;
  }

  #sendCancel(queryId: bigint): boolean {
    return this.#link.send({ cancel: { queryId } });
  }

  #forgetQuestion(): void {
    this.#question?.pause?.();
    this.#question = null;
    this.#frames.giveUp();
    this.#link.expect(false);
  }

  /** Sends a question under an id of its own, after its frame where the session lacks it. */
  #submit(question: Question): void {
    question.id = this.#nextId;
    this.#nextId += 1n;
    question.heard = question.repeated = false;
    this.#transmit(question);
  }

  #transmit(question: Question): void {
    question.session = this.#session;
    question.stream = this.#stream;
    question.pause = null;
    this.#frames.ensure(question.frame, (frameId) => {
      if (question !== this.#question) return;
      const { steps, previewEvery, model } = question.wishes;
      const { id: queryId, text } = question;
      const query = { queryId, text, frameId, options: { steps, previewEvery }, model: model ?? "" };
      if (!this.#link.send({ query })) return;
      this.#link.expect(true);
      this.#tell({ kind: "asked" });
    });
  }

  #restart(question: Question): void {
    this.#tell({ kind: "restarted" });
    this.#submit(question);
  }

  #connected(started: SessionStarted, resumed: boolean): void {
    this.#stream += 1;
    if (!resumed) {
      this.#session += 1;
      this.#refusedFrame = "";
    }
    this.#server = started.server ?? null;
    if (started.server === undefined) {
      this.#link.close();
      this.#tell({
        kind: "ended",
        why: "The server does not say what it runs; it is too old for this page.",
        cure: "operator",
      });
      return;
    }
    this.#frames.connected(started.frameCredits, resumed);
    if (resumed && this.#abandoned > 0n) this.#sendCancel(this.#abandoned);
    this.#abandoned = 0n;
    this.#tell({ kind: "connected", server: started.server, resumed });
    const question = this.#question;
    if (question === null || question.pause !== null) return;
    if (question.id === 0n) {
      this.#submit(question);
    } else if (question.session !== this.#session) {
      question.restarts += 1;
      if (question.restarts > MOST_RESTARTS) {
        this.#forgetQuestion();
        this.#tell({
          kind: "failed",
          why: `The server lost this question ${question.restarts} times. Ask again, or another way.`,
          cure: "again",
        });
      } else {
        this.#restart(question);
      }
    } else if (!question.heard && question.stream !== this.#stream) {
      question.repeated = true; // it may have been lost on the way
      this.#transmit(question);
    }
  }

  #received(response: GuideResponse): void {
    const { frameReceived, descriptionDelta, progress, result, error } = response;
    if (frameReceived !== undefined) this.#frames.received(frameReceived.frameId);
    if (error?.queryId === 0n) {
      // A frame was refused. The question about it fails next, and should say why.
      this.#refusedFrame = error.message;
      return;
    }
    const question = this.#question;
    const queryId = (descriptionDelta ?? progress ?? result ?? error)?.queryId;
    if (question === null || queryId !== question.id) return;
    if (error !== undefined) {
      this.#failed(question, error);
      return;
    }
    question.heard = true;
    if (descriptionDelta !== undefined) {
      this.#tell({ kind: "described", piece: descriptionDelta.text, done: descriptionDelta.done });
    } else if (progress !== undefined) {
      const { step, steps, preview } = progress;
      this.#tell({ kind: "painting", step, steps, preview });
    } else if (result !== undefined) {
      this.#forgetQuestion();
      this.#tell({ kind: "answered", answer: answerOf(question, result) });
    }
  }

  #failed(question: Question, error: QueryError): void {
    if (error.code === Code.INVALID && question.repeated) {
      // Perhaps only its id is: the server may have had the question before. Another id makes it sure.
      question.repeated = false;
      if (!question.heard) this.#restart(question);
      return;
    }
    const again = error.code === Code.OVERLOADED || error.code === Code.UNAVAILABLE;
    if (again && error.retryAfterMs > 0 && question.retries < MOST_RETRIES) {
      question.retries += 1;
      const wait = error.retryAfterMs * (1 + 0.5 * this.#random());
      question.pause = this.#clock.after(wait, () => {
        question.pause = null;
        question.id = 0n; // if there is no stream now, the next one begins with it
        if (this.#link.up) this.#restart(question);
      });
      this.#link.expect(false);
      this.#tell({ kind: "busy", afterMs: wait });
      return;
    }
    this.#forgetQuestion();
    this.#frames.forget(question.frame);
    const because = error.code === Code.NO_FRAME && this.#refusedFrame ? ` (${this.#refusedFrame})` : "";
    const cure = error.code === Code.INVALID || error.code === Code.NO_FRAME ? unfit(error) : "again";
    this.#tell({ kind: "failed", why: error.message + because, cure });
  }
}

function unfit(error: QueryError): FailureCure {
  return /\btoken\b.*(revoked|expired)/.test(error.message) ? "token" : "words";
}

function answerOf(question: Question, result: GuidanceResult): Answer {
  return {
    text: question.text,
    frame: question.frame,
    description: result.description,
    image: result.image,
    width: result.width,
    height: result.height,
    totalMs: result.timings?.totalMs ?? 0,
    steps: result.steps,
    seed: result.seed,
    modelVersion: result.modelVersion,
  };
}
