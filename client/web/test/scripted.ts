/** A server in this process: it speaks the real messages over a connection of its own, and does what a test says. */

import type { Clock } from "../src/clock.ts";
import type { EncodedFrame } from "../src/encoding.ts";
import type { Diagnosis, Socket, SocketListener } from "../src/link.ts";
import { type Draft, decode, encode, type Message } from "../src/proto/codec.ts";
import {
  type Cancel,
  type Frame,
  GuideRequest,
  GuideResponse,
  type Query,
  type Resume,
} from "../src/proto/messages.ts";
import { Session, type SessionEvent } from "../src/session.ts";

/** Time that passes when a test says so. */
export class ManualClock implements Clock {
  #now = 0;
  #timers: { at: number; call: () => void }[] = [];

  now(): number {
    return this.#now;
  }

  after(ms: number, call: () => void): () => void {
    const timer = { at: this.#now + ms, call };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((each) => each !== timer);
    };
  }

  /** Lets time pass, and everything happen that was to happen in it. */
  pass(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      const [next] = this.#timers.filter((each) => each.at <= end).sort((one, other) => one.at - other.at);
      if (next === undefined) break;
      this.#timers = this.#timers.filter((each) => each !== next);
      this.#now = next.at;
      next.call();
    }
    this.#now = end;
  }
}

type Response = Draft<typeof GuideResponse>;
type Request = Message<typeof GuideRequest>;

interface Requests {
  frame: Message<typeof Frame>;
  query: Message<typeof Query>;
  cancel: Message<typeof Cancel>;
  resume: Message<typeof Resume>;
}

/** One connection, as the server sees it. */
export class Connection implements Socket {
  readonly requests: Request[] = [];
  closedByClient: number | null = null;
  readonly #listener: SocketListener;
  readonly #server: Server;

  constructor(server: Server, listener: SocketListener) {
    this.#server = server;
    this.#listener = listener;
  }

  send(data: Uint8Array<ArrayBuffer>): void {
    this.requests.push(decode(GuideRequest, data));
  }

  close(code = 1005): void {
    this.closedByClient = code;
  }

  /** What the client has sent, by kind. */
  kinds(): string[] {
    return this.requests.flatMap((each) => Object.keys(each));
  }

  /** The newest message of a kind. */
  last<K extends keyof Requests>(kind: K): Requests[K] {
    const found = this.requests.findLast((each) => each[kind] !== undefined)?.[kind];
    if (found === undefined) throw new Error(`the client sent no ${kind}`);
    return found as Requests[K];
  }

  open(): this {
    this.#listener.opened();
    return this;
  }

  /** Opens, and begins a session, or goes on with the one that was. */
  start(token = `token ${this.#server.connections.length}`, resumed = false): this {
    this.open();
    this.say({
      sessionStarted: { resumeToken: token, resumed, frameCredits: 2, server: { modelName: "model", maxSteps: 50 } },
    });
    return this;
  }

  /** Answers a `Resume` with yes. */
  resume(): void {
    const { token } = this.last("resume");
    this.say({ sessionStarted: { resumeToken: token, resumed: true, frameCredits: 2, server: {} } });
  }

  say(message: Response, sequence = 0n): void {
    const bytes = encode(GuideResponse, { ...message, sequence });
    this.#listener.message(bytes.buffer);
  }

  /** Says something as the next numbered message of the session. */
  tell(message: Response): void {
    this.#server.sequence += 1n;
    this.say(message, this.#server.sequence);
  }

  raw(data: ArrayBuffer | string): void {
    this.#listener.message(data);
  }

  drop(code = 1006, reason = ""): void {
    this.#listener.closed(code, reason);
  }
}

export class Server {
  readonly connections: Connection[] = [];
  sequence = 0n;

  get newest(): Connection {
    return this.connections.at(-1)!;
  }
}

/** Returns a session with its server, its clock and what it has told; random waits are always the longest. */
export function scripted(diagnosis: Diagnosis = "absent") {
  const server = new Server();
  const clock = new ManualClock();
  const events: SessionEvent[] = [];
  const session = new Session(
    {
      dial: (listener) => {
        const connection = new Connection(server, listener);
        server.connections.push(connection);
        return connection;
      },
      diagnose: async () => diagnosis,
      backoff: { totalMs: 60_000, baseMs: 200, capMs: 5_000, random: () => 0.999 },
      clock,
    },
    (event) => events.push(event),
  );
  const kinds = () => events.map((each) => each.kind);
  const last = () => events.at(-1)!;
  return { session, server, clock, events, kinds, last };
}

export function frame(byte: number): EncodedFrame {
  return { jpeg: new Uint8Array([byte]), width: 64, height: 48 };
}

/** Lets promises that are settled be acted on. */
export const settled = () => new Promise<void>((resolve) => setImmediate(resolve));
