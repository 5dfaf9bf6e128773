/** What the end of a connection means: come back, sleep until asked, or do not come back and say what to do. */

/** What a person can do about a refusal. */
export type Cure = "token" | "reload" | "operator" | "retry";

export type Ending =
  | { kind: "again"; afterMs: number; why: string }
  /** The server has shown out somebody who said nothing; the next question opens a session again. */
  | { kind: "idle" }
  | { kind: "refused"; cure: Cure; why: string };

// Application codes are 4000 plus a status of gRPC's (docs/gateway.md).
const INVALID = 4003;
const IDLE = 4004;
const NOT_ALLOWED = 4007;
const EXHAUSTED = 4008;
const ELSEWHERE = 4010;
const INTERNAL = 4013;
const UNAUTHENTICATED = 4016;
const PROTOCOL_ERROR = 1002;
const UNSUPPORTED = 1003;
const NO_TEXT = 1007;
const TOO_BIG = 1009;
const POLICY = 1008;

/** Reads a close code and its reason: `retry-after-ms=N sentence`, or only the sentence. */
export function readClose(code: number, reason: string): Ending {
  const asked = /^retry-after-ms=(\d{1,9}) ?/.exec(reason);
  const told = (asked ? reason.slice(asked[0].length) : reason).trim();
  const afterMs = asked ? Number(asked[1]) : 0;
  const why = (otherwise: string) => (told ? sentence(told) : otherwise);
  switch (code) {
    case IDLE:
      return { kind: "idle" };
    case UNAUTHENTICATED:
    case NOT_ALLOWED:
      return { kind: "refused", cure: "token", why: why("This server asks for a token.") };
    case ELSEWHERE:
      return { kind: "refused", cure: "retry", why: why("The session goes on in another tab or on another device.") };
    case POLICY:
      return { kind: "refused", cure: "operator", why: why("This server does not let you in.") };
    case PROTOCOL_ERROR:
    case UNSUPPORTED:
    case NO_TEXT:
    case INVALID:
      return { kind: "refused", cure: "reload", why: why("Page and server do not speak the same protocol.") };
    case TOO_BIG:
      return { kind: "refused", cure: "retry", why: why("The picture was larger than the server takes.") };
    case INTERNAL:
    case EXHAUSTED:
      return afterMs || code === INTERNAL
        ? { kind: "again", afterMs: Math.max(afterMs, 1000), why: why("The server is busy.") }
        : { kind: "refused", cure: "operator", why: why("You have used up what this server allows you.") };
    default:
      return { kind: "again", afterMs, why: why("The connection was lost.") };
  }
}

/** Returns a text as a sentence: a capital first, a full stop last. */
export function sentence(text: string): string {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(whole) ? whole : `${whole}.`;
}
