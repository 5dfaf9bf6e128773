/** All that the page shows, and how each event changes it: no browser in here. */

import { type Cure, sentence } from "./closing.ts";
import type { EncodedFrame } from "./encoding.ts";
import type { ServerInfo } from "./proto/messages.ts";
import type { Answer, FailureCure, SessionEvent } from "./session.ts";
import type { Trouble } from "./trouble.ts";

export const ANSWERS_KEPT = 12;

const FAILURE_CURES: Record<FailureCure, string> = {
  again: "Ask again in a moment.",
  words: "Ask in other words, or about another view.",
  token: "Enter another token.",
};

export type Connection =
  | { kind: "connecting" }
  | { kind: "ready" }
  /** The session ended because nothing was asked; the next question opens another. */
  | { kind: "asleep" }
  | { kind: "waiting"; why: string }
  | { kind: "ended"; why: string; cure: Cure };

export type CameraState =
  | { kind: "off" }
  | { kind: "starting" }
  | { kind: "live"; canSwitch: boolean; canTorch: boolean; torch: boolean; dark: boolean }
  | { kind: "photo" }
  | { kind: "failed"; trouble: Trouble };

export type Stage = "taking" | "queued" | "sent" | "busy" | "describing" | "painting";

/** The question under way. */
export interface Asked {
  readonly text: string;
  /** Null while it is being prepared. */
  readonly frame: EncodedFrame | null;
  readonly stage: Stage;
  readonly description: string;
  readonly step: number;
  readonly steps: number;
  readonly preview: Uint8Array | null;
}

export interface Failure {
  /** The question that failed; empty if it was something else. */
  readonly text: string;
  readonly trouble: Trouble;
}

export interface State {
  readonly connection: Connection;
  readonly server: ServerInfo | null;
  readonly camera: CameraState;
  /** What has been understood so far while the wearer speaks; null while nobody listens. */
  readonly heard: string | null;
  readonly asked: Asked | null;
  readonly failure: Failure | null;
  /** Newest first. */
  readonly answers: readonly Answer[];
  /** The answer on the stage; null for the live view. */
  readonly shown: Answer | null;
}

export type AppEvent =
  | SessionEvent
  | { kind: "camera"; camera: CameraState }
  | { kind: "hearing"; heard: string | null }
  | { kind: "question"; text: string }
  | { kind: "framed"; frame: EncodedFrame }
  | { kind: "cancelled" }
  | { kind: "trouble"; text: string; trouble: Trouble }
  | { kind: "dismissed" }
  | { kind: "show"; answer: Answer | null }
  | { kind: "cleared" };

export const initial: State = {
  connection: { kind: "connecting" },
  server: null,
  camera: { kind: "off" },
  heard: null,
  asked: null,
  failure: null,
  answers: [],
  shown: null,
};

/** Returns what the page shows after an event. */
export function reduce(state: State, event: AppEvent): State {
  switch (event.kind) {
    case "connecting":
      return { ...state, connection: { kind: "connecting" } };
    case "connected":
      return { ...state, connection: { kind: "ready" }, server: event.server };
    case "waiting":
      return { ...state, connection: { kind: "waiting", why: event.why } };
    case "slept":
      return { ...state, connection: { kind: "asleep" } };
    case "ended":
      return { ...state, connection: { kind: "ended", why: event.why, cure: event.cure } };
    case "camera":
      return { ...state, camera: event.camera };
    case "hearing":
      return { ...state, heard: event.heard };
    case "question": {
      const { text } = event;
      const asked: Asked = { text, frame: null, stage: "taking", description: "", step: 0, steps: 0, preview: null };
      return { ...state, asked, failure: null, heard: null, shown: null };
    }
    case "framed":
      return state.asked === null
        ? state
        : { ...state, asked: { ...state.asked, frame: event.frame, stage: "queued" } };
    case "cancelled":
      return { ...state, asked: null };
    case "trouble":
      return { ...state, failure: { text: event.text, trouble: event.trouble }, heard: null };
    case "dismissed":
      return { ...state, failure: null };
    case "show":
      return { ...state, shown: event.answer, failure: null };
    case "cleared":
      return { ...state, answers: [], shown: null };
    case "queued":
    case "asked":
    case "restarted":
    case "busy":
    case "described":
    case "painting":
    case "answered":
    case "failed":
      return state.asked === null ? state : answering(state, state.asked, event);
  }
}

type QuestionEvent = Extract<
  SessionEvent,
  { kind: "queued" | "asked" | "restarted" | "busy" | "described" | "painting" | "answered" | "failed" }
>;

function answering(state: State, asked: Asked, event: QuestionEvent): State {
  const become = (change: Partial<Asked>): State => ({ ...state, asked: { ...asked, ...change } });
  switch (event.kind) {
    case "queued":
      return become({ stage: "queued" });
    case "asked":
      return become({ stage: asked.stage === "queued" || asked.stage === "busy" ? "sent" : asked.stage });
    case "busy":
      return become({ stage: "busy" });
    case "restarted":
      return become({ stage: "sent", description: "", step: 0, steps: 0, preview: null });
    case "described":
      return become({ stage: "describing", description: asked.description + event.piece });
    case "painting": {
      const preview = event.preview.length > 0 ? event.preview : asked.preview;
      return become({ stage: "painting", step: event.step, steps: event.steps, preview });
    }
    case "answered": {
      const answers = [event.answer, ...state.answers].slice(0, ANSWERS_KEPT);
      return { ...state, asked: null, answers, shown: event.answer };
    }
    case "failed": {
      const trouble: Trouble = {
        why: sentence(event.why),
        cure: FAILURE_CURES[event.cure],
        ...(event.cure === "token" ? { help: "token" } : {}),
      };
      return { ...state, asked: null, failure: { text: asked.text, trouble } };
    }
  }
}

export type Tone = "quiet" | "busy" | "good" | "warn" | "bad";

/** Returns the state in a word or two, for the badge at the top. */
export function badge(state: State): { tone: Tone; label: string } {
  const { connection, asked, heard } = state;
  if (heard !== null) return { tone: "busy", label: "Listening" };
  switch (connection.kind) {
    case "connecting":
      return { tone: "busy", label: "Connecting" };
    case "waiting":
      return { tone: "warn", label: "Reconnecting" };
    case "ended":
      return connection.cure === "retry" ? { tone: "bad", label: "Offline" } : { tone: "bad", label: "Refused" };
    case "asleep":
    case "ready":
      break;
  }
  if (asked !== null) return { tone: "busy", label: progressLabel(asked) };
  if (state.shown !== null) return { tone: "good", label: "Answer" };
  return { tone: "good", label: "Ready" };
}

/** Returns how far the question under way has come. */
export function progressLabel(asked: Asked): string {
  switch (asked.stage) {
    case "taking":
      return "Taking the picture";
    case "queued":
      return "Waiting to send";
    case "busy":
      return "Server busy";
    case "sent":
    case "describing":
      return "Thinking";
    case "painting":
      return `Painting ${asked.step}/${asked.steps}`;
  }
}

/** Returns what stands in the way of an answer and what to do about it; null if nothing does. */
export function obstacle(connection: Connection): Trouble | null {
  if (connection.kind === "waiting") {
    return { why: connection.why, cure: "Trying again by itself; a question asked now is kept and sent then." };
  }
  if (connection.kind !== "ended") return null;
  switch (connection.cure) {
    case "token":
      return { why: connection.why, cure: "Enter the token that the server's operator gave you.", help: "token" };
    case "reload":
      return { why: connection.why, cure: "Reload the page; if that does not help, the server is of another version." };
    case "operator":
      return { why: connection.why, cure: "Ask whoever runs this server." };
    case "retry":
      return { why: connection.why, cure: "Check the network and try again. A question without an answer is kept." };
  }
}

/** Returns what a screen reader should say after a change; empty for nothing. */
export function announcement(before: State, after: State): string {
  if (after.shown !== null && after.shown !== before.shown) return `Answer: ${after.shown.description}`;
  if (after.failure !== null && after.failure !== before.failure)
    return `${after.failure.trouble.why} ${after.failure.trouble.cure}`;
  if (after.asked !== null && after.asked.stage !== before.asked?.stage) {
    if (after.asked.stage === "painting") return `${after.asked.description} Painting the picture.`;
    if (after.asked.stage !== "describing" && after.asked.stage !== "taking")
      return `${progressLabel(after.asked)}: ${after.asked.text}`;
  }
  if (after.connection.kind !== before.connection.kind) {
    const trouble = obstacle(after.connection);
    return trouble === null ? badge(after).label : `${badge(after).label}. ${trouble.why} ${trouble.cure}`;
  }
  if (after.camera !== before.camera && after.camera.kind === "failed") {
    return `${after.camera.trouble.why} ${after.camera.trouble.cure}`;
  }
  return "";
}
