import assert from "node:assert/strict";
import { test } from "node:test";
import { decode } from "../src/proto/codec.ts";
import { ServerInfo } from "../src/proto/messages.ts";
import type { Answer } from "../src/session.ts";
import {
  ANSWERS_KEPT,
  type AppEvent,
  announcement,
  badge,
  initial,
  obstacle,
  reduce,
  type State,
} from "../src/state.ts";
import { frame } from "./scripted.ts";

const nothing = new Uint8Array();
const server = decode(ServerInfo, nothing);

function after(...events: AppEvent[]): State {
  return events.reduce(reduce, initial);
}

function answer(text: string): Answer {
  return {
    text,
    frame: frame(1),
    description: `${text} so`,
    image: new Uint8Array([2]),
    width: 64,
    height: 48,
    totalMs: 900,
    steps: 4,
    seed: 5n,
    modelVersion: "model-1",
  };
}

const connected: AppEvent = { kind: "connected", server, resumed: false };
const question: AppEvent = { kind: "question", text: "how?" };
const framed: AppEvent = { kind: "framed", frame: frame(1) };

test("the badge follows a question from the first word to the answer", () => {
  const events: [AppEvent, string][] = [
    [{ kind: "connecting" }, "Connecting"],
    [connected, "Ready"],
    [{ kind: "hearing", heard: "" }, "Listening"],
    [question, "Taking the picture"],
    [framed, "Waiting to send"],
    [{ kind: "asked" }, "Thinking"],
    [{ kind: "described", piece: "pull", done: false }, "Thinking"],
    [{ kind: "painting", step: 3, steps: 8, preview: nothing }, "Painting 3/8"],
    [{ kind: "waiting", afterMs: 1, why: "The connection was lost." }, "Reconnecting"],
    [connected, "Painting 3/8"],
    [{ kind: "busy", afterMs: 1000 }, "Server busy"],
    [{ kind: "asked" }, "Thinking"],
    [{ kind: "answered", answer: answer("how?") }, "Answer"],
    [{ kind: "show", answer: null }, "Ready"],
    [{ kind: "slept" }, "Ready"],
    [{ kind: "ended", why: "The server cannot be reached.", cure: "retry" }, "Offline"],
    [{ kind: "ended", why: "This server asks for a token.", cure: "token" }, "Refused"],
  ];
  let state = initial;
  for (const [event, label] of events) {
    state = reduce(state, event);
    assert.equal(badge(state).label, label, event.kind);
  }
});

test("a description grows by its pieces, and begins anew where the question does", () => {
  const piece = (text: string): AppEvent => ({ kind: "described", piece: text, done: false });
  let state = after(connected, question, framed, { kind: "asked" }, piece("pull "), piece("it"));
  assert.equal(state.asked?.description, "pull it");
  state = [{ kind: "restarted" } as AppEvent, piece("push")].reduce(reduce, state);
  assert.equal(state.asked?.description, "push");
});

test("a preview stays until the next one, and goes where the question begins anew", () => {
  const preview = new Uint8Array([1]);
  let state = after(connected, question, { kind: "painting", step: 1, steps: 4, preview });
  state = reduce(state, { kind: "painting", step: 2, steps: 4, preview: nothing });
  assert.equal(state.asked?.preview, preview);
  assert.equal(reduce(state, { kind: "restarted" }).asked?.preview, null);
});

test("what comes of a question that was cancelled changes nothing", () => {
  const state = after(connected, question, { kind: "cancelled" });
  assert.equal(reduce(state, { kind: "described", piece: "x", done: false }), state);
  assert.equal(reduce(state, { kind: "failed", why: "x", cure: "again" }), state);
});

test("the newest answers are kept, the newest is shown, and all go when they are cleared", () => {
  let state = after(connected);
  for (let i = 0; i < ANSWERS_KEPT + 3; i += 1) {
    state = reduce(reduce(state, question), { kind: "answered", answer: answer(`question ${i}`) });
  }
  assert.equal(state.answers.length, ANSWERS_KEPT);
  assert.equal(state.shown?.text, `question ${ANSWERS_KEPT + 2}`);
  state = reduce(state, { kind: "cleared" });
  assert.deepEqual([state.answers.length, state.shown], [0, null]);
});

test("a failure says why and what to do, and gives way to the next question", () => {
  const state = after(connected, question, { kind: "failed", why: "the server is full", cure: "again" });
  assert.deepEqual(state.failure, {
    text: "how?",
    trouble: { why: "The server is full.", cure: "Ask again in a moment." },
  });
  assert.equal(reduce(state, question).failure, null);
});

test("each refusal and each outage names a cure; a session that sleeps needs none", () => {
  for (const cure of ["token", "reload", "operator", "retry"] as const) {
    assert.ok(obstacle({ kind: "ended", why: "No.", cure })?.cure);
  }
  assert.ok(obstacle({ kind: "waiting", why: "Lost." })?.cure);
  for (const kind of ["asleep", "ready", "connecting"] as const) assert.equal(obstacle({ kind }), null);
});

test("a screen reader hears the stages, the answer and what went wrong, but not every step", () => {
  let state = after(connected);
  const said: string[] = [];
  const happen = (event: AppEvent) => {
    const before = state;
    state = reduce(state, event);
    said.push(announcement(before, state));
  };
  happen(question);
  happen(framed);
  happen({ kind: "asked" });
  happen({ kind: "described", piece: "Pull it.", done: true });
  for (let step = 1; step < 4; step += 1) happen({ kind: "painting", step, steps: 4, preview: nothing });
  happen({ kind: "answered", answer: { ...answer("how?"), description: "Pull it." } });
  happen({ kind: "ended", why: "The server cannot be reached.", cure: "retry" });
  assert.deepEqual(said, [
    "",
    "Waiting to send: how?",
    "Thinking: how?",
    "",
    "Pull it. Painting the picture.",
    "",
    "",
    "Answer: Pull it.",
    "Offline. The server cannot be reached. Check the network and try again. A question without an answer is kept.",
  ]);
});
