import assert from "node:assert/strict";
import { test } from "node:test";
import { Code } from "../src/proto/messages.ts";
import type { SessionEvent } from "../src/session.ts";
import { type Connection, frame, scripted, settled } from "./scripted.ts";

function connected() {
  const all = scripted();
  all.session.connect();
  all.server.newest.start();
  return all;
}

function acknowledge(connection: Connection): void {
  connection.tell({ frameReceived: { frameId: connection.last("frame").frameId } });
}

function describe(connection: Connection, text: string): void {
  const { queryId } = connection.last("query");
  connection.tell({ descriptionDelta: { queryId, text, done: false } });
}

function answer(connection: Connection, description = "pull it open"): void {
  const { queryId, frameId } = connection.last("query");
  const image = new Uint8Array([7]);
  connection.tell({ result: { queryId, frameId: frameId ?? 0n, description, image, steps: 4 } });
}

function fail(connection: Connection, code: number, message: string, retryAfterMs = 0): void {
  const { queryId } = connection.last("query");
  connection.tell({ error: { queryId, code, message, retryAfterMs } });
}

const answers = (events: SessionEvent[]) => events.filter((each) => each.kind === "answered");

test("a question goes out after its frame, and its answer comes back in pieces", () => {
  const { session, server, kinds, events } = connected();
  session.ask("how?", frame(1), { steps: 8, previewEvery: 2, model: "m" });
  const { newest } = server;
  assert.deepEqual(newest.kinds(), ["frame", "query"]);
  const query = newest.last("query");
  assert.equal(query.text, "how?");
  assert.equal(query.frameId, newest.last("frame").frameId);
  assert.equal(query.model, "m");
  assert.equal(query.options?.steps, 8);
  assert.equal(query.options?.previewEvery, 2);
  assert.equal(query.options?.seed, undefined);
  describe(newest, "pull ");
  newest.tell({ progress: { queryId: query.queryId, step: 1, steps: 8, preview: new Uint8Array([5]) } });
  answer(newest);
  assert.deepEqual(kinds(), ["connecting", "connected", "asked", "described", "painting", "answered"]);
  const [last] = answers(events);
  assert.ok(last?.kind === "answered");
  assert.equal(last.answer.description, "pull it open");
  assert.deepEqual(last.answer.frame, frame(1));
});

test("an unset wish is left to the model", () => {
  const { session, server } = connected();
  session.ask("how?", frame(1), {});
  const { options } = server.newest.last("query");
  assert.equal(options?.steps, undefined);
  assert.equal(options?.previewEvery, undefined);
});

test("a newer question supersedes the one before, of which nothing is told any more", () => {
  const { session, server, events, kinds } = connected();
  const same = frame(1);
  session.ask("first?", same, {});
  const first = server.newest.last("query").queryId;
  session.ask("second?", same, {});
  assert.ok(server.newest.last("query").queryId > first);
  assert.equal(server.newest.kinds().filter((each) => each === "frame").length, 1, "the same frame is sent once");
  server.newest.tell({ descriptionDelta: { queryId: first, text: "stale", done: false } });
  server.newest.tell({ error: { queryId: first, code: Code.SUPERSEDED, message: "query 2 took its place" } });
  assert.ok(!kinds().includes("described") && !kinds().includes("failed"));
  answer(server.newest);
  assert.equal(answers(events).length, 1);
});

test("a picture that waits for a credit is not sent once its question is cancelled or replaced", () => {
  const { session, server } = connected();
  session.offer(frame(1));
  session.offer(frame(2));
  session.ask("how?", frame(3), {});
  session.cancel();
  session.ask("and how?", frame(4), {});
  session.ask("or how?", frame(5), {});
  acknowledge(server.newest);
  acknowledge(server.newest);
  const sent = server.newest.requests.flatMap((each) => each.frame?.image[0] ?? []);
  assert.deepEqual(sent, [1, 2, 5]);
  assert.equal(server.newest.last("query").text, "or how?");
});

test("frames keep within the credits, and the newest offered view is the one that is sent", () => {
  const { session, server } = connected();
  assert.ok(session.wantsViews);
  for (const each of [1, 2, 3]) session.offer(frame(each));
  assert.equal(server.newest.requests.length, 2);
  assert.ok(!session.wantsViews);
  session.ask("how?", frame(9), {});
  assert.equal(server.newest.requests.length, 2, "a frame asked about waits for a credit, too");
  acknowledge(server.newest);
  assert.deepEqual(server.newest.kinds(), ["frame", "frame", "frame", "query"]);
  assert.deepEqual([...server.newest.last("frame").image], [9]);
});

test("a question asked without a connection is kept, the newest one only, and sent when there is one", () => {
  const { session, server, kinds } = scripted();
  session.connect();
  session.ask("first?", frame(1), {});
  session.ask("second?", frame(2), {});
  assert.deepEqual(kinds(), ["connecting", "queued", "queued"]);
  server.newest.start();
  assert.deepEqual(server.newest.kinds(), ["frame", "query"]);
  assert.equal(server.newest.last("query").text, "second?");
  assert.deepEqual([...server.newest.last("frame").image], [2]);
});

test("a kept question that is cancelled is never sent", () => {
  const { session, server } = scripted();
  session.connect();
  session.ask("how?", frame(1), {});
  session.cancel();
  server.newest.start();
  assert.deepEqual(server.newest.kinds(), []);
});

test("a broken stream is resumed, and nothing is asked or told twice", () => {
  const { session, server, clock, kinds, events } = connected();
  session.ask("how?", frame(1), {});
  describe(server.newest, "pull ");
  server.newest.drop();
  clock.pass(200);
  const second = server.newest.start("another");
  assert.equal(second.last("resume").token, "token 1");
  assert.equal(second.last("resume").received, 1n);
  second.resume();
  second.say({ descriptionDelta: { queryId: 1n, text: "pull ", done: false } }, 1n);
  second.say({ descriptionDelta: { queryId: 1n, text: "it", done: true } }, 2n);
  assert.deepEqual(second.kinds(), ["resume"]);
  assert.deepEqual(kinds().filter((each) => each === "described").length, 2);
  second.say({ result: { queryId: 1n, description: "pull it", image: new Uint8Array(1) } }, 3n);
  assert.equal(answers(events).length, 1);
});

test("a question of which nothing was heard is sent again in a resumed session, under its id", () => {
  const { session, server, clock } = connected();
  session.ask("how?", frame(1), {});
  server.newest.drop();
  clock.pass(200);
  server.newest.start("another").resume();
  assert.deepEqual(server.newest.kinds(), ["resume", "frame", "query"], "its frame may have been lost, too");
  assert.equal(server.newest.last("query").queryId, 1n);
});

test("a server that had the question all the same is asked under another id", () => {
  const { session, server, clock, kinds } = connected();
  session.ask("how?", frame(1), {});
  server.newest.drop();
  clock.pass(200);
  server.newest.start("another").resume();
  fail(server.newest, Code.INVALID, "its id must be above 1");
  assert.ok(kinds().includes("restarted"));
  assert.equal(server.newest.last("query").queryId, 2n);
});

test("in a new session the question is asked anew, frame and all, and its reader is told", () => {
  const { session, server, clock, kinds } = connected();
  session.ask("how?", frame(1), {});
  acknowledge(server.newest);
  describe(server.newest, "pull ");
  server.newest.drop();
  clock.pass(200);
  server.newest.start("another");
  server.newest.say({ sessionStarted: { resumed: false, server: {}, resumeToken: "another" } });
  assert.ok(kinds().includes("restarted"));
  assert.deepEqual(server.newest.kinds(), ["resume", "frame", "query"]);
  assert.equal(server.newest.last("query").queryId, 2n);
});

test("a question that brings its server down again and again is given up", () => {
  const { session, server, clock, last } = connected();
  session.ask("how?", frame(1), {});
  for (let time = 0; time < 6; time += 1) {
    server.newest.drop();
    clock.pass(5_000);
    server.newest.start(""); // without sessions that can be resumed
    clock.pass(5_000); // it stays up for a while
    if (last().kind === "failed") break;
    server.newest.say({ sessionStarted: { server: {} } });
  }
  const end = last();
  assert.ok(end.kind === "failed");
  assert.match(end.why, /lost this question 6 times/);
});

test("a cancelled question is stopped on the server, at once or when the link is back", () => {
  const { session, server, clock } = connected();
  session.ask("how?", frame(1), {});
  session.cancel();
  assert.equal(server.newest.last("cancel").queryId, 1n);
  session.ask("again?", frame(1), {});
  server.newest.drop();
  session.cancel();
  clock.pass(200);
  server.newest.start("another").resume();
  assert.deepEqual(server.newest.kinds(), ["resume", "cancel"]);
  assert.equal(server.newest.last("cancel").queryId, 2n);
});

test("a server without room is asked again when it says, a few times", () => {
  const { session, server, clock, kinds, last } = connected();
  session.ask("how?", frame(1), {});
  for (let time = 0; time < 5; time += 1) {
    fail(server.newest, Code.OVERLOADED, "the server is full", 1000);
    const before = server.newest.requests.length;
    clock.pass(900);
    assert.equal(server.newest.requests.length, before, "not before it is time");
    clock.pass(700);
    assert.equal(server.newest.requests.length, before + 1);
  }
  assert.equal(kinds().filter((each) => each === "busy").length, 5);
  fail(server.newest, Code.OVERLOADED, "the server is full", 1000);
  const end = last();
  assert.ok(end.kind === "failed" && end.cure === "again");
});

test("a refused frame explains why its question failed, and the frame is sent again for the next", () => {
  const { session, server, last } = connected();
  const same = frame(1);
  session.ask("how?", same, {});
  server.newest.tell({ error: { code: Code.INVALID, message: "frame 1: it is 9 x 1 pixels" } });
  fail(server.newest, Code.NO_FRAME, "the session has no frame 1");
  const end = last();
  assert.ok(end.kind === "failed");
  assert.match(end.why, /no frame 1 \(frame 1: it is 9 x 1 pixels\)/);
  session.ask("how?", same, {});
  assert.deepEqual(server.newest.kinds(), ["frame", "query", "frame", "query"]);
});

test("a token that ends while it is used is asked for again", () => {
  const { session, server, last } = connected();
  session.ask("how?", frame(1), {});
  fail(server.newest, Code.INVALID, "your token has been revoked; ask the operator for a new one");
  const end = last();
  assert.ok(end.kind === "failed" && end.cure === "token");
});

test("an outage is fought with growing waits, for a minute, and then given up with the question kept", () => {
  const { session, server, clock, events, last } = connected();
  session.ask("how?", frame(1), {});
  server.newest.drop();
  for (let tries = 0; tries < 40 && last().kind !== "ended"; tries += 1) {
    clock.pass(5_000);
    if (server.newest.closedByClient === null) server.newest.open().drop();
  }
  const waits = events.filter((each) => each.kind === "waiting").map((each) => each.afterMs);
  assert.ok(waits.slice(0, 5).every((wait, i) => wait > 0.99 * 200 * 2 ** i && wait < 200 * 2 ** i));
  assert.ok(Math.max(...waits) < 5_000);
  const end = last();
  assert.ok(end.kind === "ended" && end.cure === "retry");
  session.connect();
  server.newest.start("another");
  server.newest.say({ sessionStarted: { server: {} } });
  assert.equal(server.newest.last("query").text, "how?");
});

test("a server that answers nothing is given up after ten seconds, and tried again", () => {
  const { session, server, clock, kinds } = scripted();
  session.connect();
  server.newest.open();
  clock.pass(10_000);
  assert.equal(server.connections.length, 1);
  assert.deepEqual(kinds(), ["connecting", "waiting"]);
  clock.pass(200);
  assert.equal(server.connections.length, 2);
});

test("a link that is silent while an answer is due is opened anew and resumed; one that speaks is not", () => {
  const { session, server, clock } = connected();
  session.ask("how?", frame(1), {});
  clock.pass(29_000);
  describe(server.newest, "pull ");
  clock.pass(29_000);
  assert.equal(server.connections.length, 1);
  clock.pass(1_200);
  assert.equal(server.connections.length, 2);
  server.newest.start("another").resume();
  const image = new Uint8Array([7]);
  server.newest.say({ result: { queryId: 1n, description: "pull it", image } }, 2n);
  clock.pass(120_000);
  assert.equal(server.connections.length, 2, "nothing is due any more");
});

for (const [code, reason, cure] of [
  [4016, "this server asks for a token: give the page one", "token"],
  [4007, "the token is for admin", "token"],
  [4003, "the message is text", "reload"],
  [4010, "the session goes on in another stream", "retry"],
  [1002, "", "reload"],
  [4008, "your day's pictures are used up", "operator"],
] as const) {
  test(`a connection closed with ${code} is not opened again, and the wearer is told what to do: ${cure}`, () => {
    const { session, server, clock, last } = scripted();
    session.connect();
    server.newest.open().drop(code, reason);
    clock.pass(600_000);
    assert.equal(server.connections.length, 1);
    const end = last();
    assert.ok(end.kind === "ended");
    assert.equal(end.cure, cure);
    if (reason) assert.equal(end.why.toLowerCase(), `${reason}.`.toLowerCase());
  });
}

test("a server that says when to come back is not bothered before", () => {
  const { session, server, clock, last } = scripted();
  session.connect();
  server.newest.open().drop(4008, "retry-after-ms=7000 too many sessions; try again later");
  const event = last();
  assert.ok(event.kind === "waiting" && event.why === "Too many sessions; try again later.");
  clock.pass(6_900);
  assert.equal(server.connections.length, 1);
  clock.pass(200);
  assert.equal(server.connections.length, 2);
});

test("a session that ended for silence is opened again by the next question only", () => {
  const { session, server, clock, last } = connected();
  server.newest.drop(4004, "nothing came from the client for 300 s; open another session");
  assert.equal(last().kind, "slept");
  clock.pass(600_000);
  assert.equal(server.connections.length, 1);
  session.ask("how?", frame(1), {});
  server.newest.start("another");
  assert.deepEqual(server.newest.kinds(), ["frame", "query"]);
});

test("why a connection never opened is found out where it can be", async () => {
  const { session, server, clock, last } = scripted({ cure: "operator", why: "This server is too old." });
  session.connect();
  server.newest.drop();
  await settled();
  assert.deepEqual(last(), { kind: "ended", cure: "operator", why: "This server is too old." });
  clock.pass(60_000);
  assert.equal(server.connections.length, 1);
});

test("a server that is well but opens no session is not tried for ever", async () => {
  const { session, server, clock, last } = scripted("well");
  session.connect();
  for (let tries = 0; tries < 3; tries += 1) {
    server.newest.drop();
    await settled();
    clock.pass(5_000);
  }
  const end = last();
  assert.ok(end.kind === "ended" && end.cure === "reload" && /WebSockets/.test(end.why));
  assert.equal(server.connections.length, 3);
});

test("a connection thought dead is left for another one, and its session resumed", () => {
  const { session, server, events } = connected();
  session.ask("how?", frame(1), {});
  describe(server.newest, "pull ");
  session.reconnect();
  const [first, second] = server.connections;
  assert.equal(first?.closedByClient, 1005);
  first?.drop(); // of which nothing is heard any more
  second?.start("another").resume();
  second?.say({ result: { queryId: 1n, description: "pull it", image: new Uint8Array(1) } }, 2n);
  assert.equal(answers(events).length, 1);
  assert.equal(server.connections.length, 2);
});

test("what is no message of the protocol ends the connection, with word to reload", () => {
  for (const data of ["hello", new Uint8Array([0xff, 0xff, 0xff]).buffer]) {
    const { session, server, last } = scripted();
    session.connect();
    server.newest.open().raw(data);
    const end = last();
    assert.ok(end.kind === "ended" && end.cure === "reload");
    assert.equal(server.newest.closedByClient, 3003);
  }
});

test("a server that does not say what it runs is too old", () => {
  const { session, server, last } = scripted();
  session.connect();
  server.newest.open().say({ sessionStarted: {} });
  const end = last();
  assert.ok(end.kind === "ended" && end.cure === "operator" && /too old/.test(end.why));
});

test("messages of a newer server that this page does not know are passed over", () => {
  const { session, server, events } = connected();
  session.ask("how?", frame(1), {});
  server.newest.raw(new Uint8Array([0x72, 1, 0]).buffer); // field 14, and nothing else
  answer(server.newest);
  assert.equal(answers(events).length, 1);
});

test("another token begins another session", () => {
  const { session, server } = connected();
  session.restart();
  assert.equal(server.connections[0]?.closedByClient, 1000);
  server.newest.start("another");
  assert.deepEqual(server.newest.kinds(), []);
});
