import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { inflateSync } from "node:zlib";
import { Outage } from "../src/backoff.ts";
import { cameraTrouble } from "../src/camera.ts";
import { readClose, sentence } from "../src/closing.ts";
import { encodeWithin, fit, UnfitFrame } from "../src/encoding.ts";
import { parseSettings, Store, usual } from "../src/settings.ts";
import { type Grey, isDark, sharpest, sharpness, toGrey } from "../src/sharpness.ts";
import { speechTrouble } from "../src/speech.ts";
import { ManualClock } from "./scripted.ts";

// When to try again

test("waits are jittered over their whole range, grow to a cap, and end with the outage", () => {
  const clock = new ManualClock();
  let draw = 0;
  const outage = new Outage({ totalMs: 60_000, baseMs: 200, capMs: 5_000, random: () => draw }, clock);
  assert.equal(outage.nextWait(), 0);
  draw = 0.5;
  assert.deepEqual([outage.nextWait(), outage.nextWait(), outage.nextWait()], [200, 400, 800]);
  for (let i = 0; i < 40; i += 1) outage.nextWait();
  assert.equal(outage.nextWait(), 2_500);
  assert.equal(outage.nextWait(9_000), 9_000, "what the server asks for counts");
  clock.pass(58_000);
  assert.equal(outage.nextWait(), null);
});

// What a close code means

test("a server that goes away, or a link that breaks, is come back to", () => {
  for (const [code, reason, afterMs] of [
    [1001, "retry-after-ms=1000 the server is shutting down; ask again when it is back", 1000],
    [1006, "", 0],
    [4013, "", 1000],
    [4014, "retry-after-ms=1000 later", 1000],
  ] as const) {
    const ending = readClose(code, reason);
    assert.ok(ending.kind === "again", String(code));
    assert.equal(ending.afterMs, afterMs, String(code));
    assert.match(ending.why, /^[A-Z].*\.$/);
  }
});

test("a sentence begins with a capital and ends with a stop", () => {
  assert.equal(sentence("wait a moment"), "Wait a moment.");
  assert.equal(sentence("Really?"), "Really?");
});

// Frames

test("a picture is scaled down to what travels, and never up", () => {
  assert.deepEqual(fit(1920, 1080, 1024, 0), { width: 1024, height: 576 });
  assert.deepEqual(fit(320, 240, 1024, 0), { width: 320, height: 240 });
  const small = fit(1920, 1080, 1920, 100_000);
  assert.ok(small.width * small.height <= 100_000);
  assert.throws(() => fit(4000, 9, 1024, 0), UnfitFrame);
});

test("a picture of too many bytes is sent at lower quality, then smaller", async () => {
  const tried: [number, number, number][] = [];
  const encode = async (width: number, height: number, quality: number) => {
    tried.push([width, height, quality]);
    return new Uint8Array(Math.round(width * height * quality));
  };
  const sent = await encodeWithin(100, 100, { maxBytes: 3_000, maxPixels: 0, longestSide: 1024 }, encode);
  assert.ok(sent.jpeg.length <= 3_000 && sent.width < 100);
  assert.ok(
    tried.every(([width, , quality]) => width === 100 || quality === 0.4),
    "quality goes first",
  );
  const free = { maxBytes: 0, maxPixels: 0, longestSide: 1024 };
  assert.equal((await encodeWithin(100, 100, free, encode)).width, 100);
  await assert.rejects(encodeWithin(100, 100, { ...free, maxBytes: 1 }, encode), UnfitFrame);
  assert.equal((await encodeWithin(100, 50, { ...free, longestSide: 64 }, encode)).width, 64, "as the wearer wishes");
});

function stripes(contrast: number, period: number): Grey {
  const values = Float32Array.from(
    { length: 64 * 48 },
    (_, i) => 128 + contrast * Math.sin((6.283 * (i % 64)) / period),
  );
  return { width: 64, height: 48, values };
}

test("a blurred view is less sharp than a crisp one, and a flat one not at all", () => {
  assert.ok(sharpness(stripes(60, 4)) > 4 * sharpness(stripes(60, 12)));
  assert.equal(sharpness(stripes(0, 4)), 0);
});

test("of views about as sharp the newest is taken", () => {
  assert.equal(sharpest([10, 50, 20]), 1);
  assert.equal(sharpest([50, 49, 48, 30]), 2);
  assert.equal(sharpest([3]), 0);
});

test("a covered camera is dark; a dim room with something in it is not", () => {
  assert.ok(isDark(toGrey({ width: 2, height: 2, data: new Uint8ClampedArray(16).fill(4) })));
  const dim = stripes(25, 8);
  assert.ok(!isDark({ ...dim, values: dim.values.map((value) => value - 115) }));
  assert.ok(!isDark(stripes(0, 8)));
});

// What goes wrong, in plain words

test("each way in which a camera or a microphone fails has its own sentence and cure", () => {
  const errors = ["NotAllowedError", "NotFoundError", "NotReadableError", "TypeError"];
  const troubles = errors.map((name) => cameraTrouble(Object.assign(new Error(), { name })));
  assert.equal(new Set(troubles.map((each) => each.why)).size, errors.length);
  const spoken = ["not-allowed", "audio-capture", "network", "no-speech", "service-not-allowed"].map(speechTrouble);
  assert.equal(new Set(spoken.map((each) => each?.why)).size, spoken.length);
  for (const trouble of [...troubles, ...spoken]) assert.ok(trouble?.why && trouble.cure);
  assert.equal(speechTrouble("aborted"), null);
});

// What is kept

test("settings that are missing, damaged or of another version are as usual", () => {
  assert.deepEqual(parseSettings(null), usual);
  assert.deepEqual(parseSettings("{damaged"), usual);
  assert.deepEqual(parseSettings('{"speak":"yes","steps":6,"gone":1}'), { ...usual, steps: 6 });
});

class Kept {
  readonly #values = new Map<string, string>();
  getItem(key: string): string | null {
    return this.#values.get(key) ?? null;
  }
  setItem(key: string, value: string): void {
    this.#values.set(key, value);
  }
  removeItem(key: string): void {
    this.#values.delete(key);
  }
}

test("a token is kept with the tab, and on the device only where that was asked for", () => {
  const places = { local: new Kept(), session: new Kept() };
  const store = new Store((which) => places[which] as unknown as Storage);
  store.keepToken("lego_a", false);
  assert.deepEqual([store.token, store.tokenStays], ["lego_a", false]);
  places.session = new Kept(); // another tab
  assert.equal(store.token, "");
  store.keepToken("lego_b", true);
  places.session = new Kept();
  assert.deepEqual([store.token, store.tokenStays], ["lego_b", true]);
  store.keepToken("", false);
  assert.equal(store.token, "");
});

test("a browser that keeps nothing is no reason to fail", () => {
  const store = new Store(() => {
    throw new Error("denied");
  });
  store.keepToken("lego_a", true);
  store.settings = usual;
  assert.deepEqual([store.token, store.settings], ["", usual]);
});

// The icons

test("the icons are those that the drawing makes", async () => {
  const web = `${process.env.LEGO_WEB}`;
  const { rows } = (await import(`${web}/scripts/icons.mjs`)) as { rows(side: number): Buffer };
  for (const side of [180, 192, 512]) {
    const png = readFileSync(`${web}/../lego_client/web/icons/icon-${side}.png`);
    const start = png.indexOf("IDAT");
    const content = png.subarray(start + 4, start + 4 + png.readUInt32BE(start - 4));
    assert.ok(inflateSync(content).equals(rows(side)), `icon-${side}.png: run npm run icons`);
  }
});
