import assert from "node:assert/strict";
import { test } from "node:test";
import type { Grey } from "../src/sharpness.ts";
import { type Affine, compose, IDENTITY, inverse, Tracker } from "../src/tracker.ts";

const WIDTH = 96;
const HEIGHT = 72;

/** A scene of smooth blobs and edges that continues in all directions; coordinates in pixels. */
function scene(seed: number): (x: number, y: number) => number {
  const waves = Array.from({ length: 14 }, (_, i) => {
    const random = (k: number) => {
      const value = Math.sin((seed + 1) * 127.1 + i * 311.7 + k * 74.7) * 43758.5453;
      return value - Math.floor(value);
    };
    return {
      fx: (random(1) - 0.5) * 0.5,
      fy: (random(2) - 0.5) * 0.5,
      phase: 6.28 * random(3),
      height: 6 + 14 * random(4),
    };
  });
  return (x, y) => {
    let value = 120;
    for (const { fx, fy, phase, height } of waves) value += height * Math.sin(fx * x + fy * y + phase);
    return value;
  };
}

/** What a camera sees: a map from the frame to this view says where the scene has gone. */
function look(at: (x: number, y: number) => number, map: Affine, gain = 1, offset = 0): Grey {
  const [a, b, c, d, e, f] = inverse(map);
  const values = new Float32Array(WIDTH * HEIGHT);
  for (let y = 0; y < HEIGHT; y += 1) {
    for (let x = 0; x < WIDTH; x += 1) {
      const [u, v] = [(x - (WIDTH - 1) / 2) / WIDTH, (y - (HEIGHT - 1) / 2) / WIDTH];
      const value = at((a * u + b * v + c) * WIDTH, (d * u + e * v + f) * WIDTH);
      values[y * WIDTH + x] = Math.min(255, Math.max(0, value * gain + offset));
    }
  }
  return { width: WIDTH, height: HEIGHT, values };
}

/** The farthest that two maps put a corner of the picture from each other, in pixels. */
function cornersApart(one: Affine, other: Affine): number {
  let most = 0;
  for (const u of [-0.5, 0.5]) {
    for (const v of [-0.375, 0.375]) {
      const x = (one[0] - other[0]) * u + (one[1] - other[1]) * v + one[2] - other[2];
      const y = (one[3] - other[3]) * u + (one[4] - other[4]) * v + one[5] - other[5];
      most = Math.max(most, WIDTH * Math.hypot(x, y));
    }
  }
  return most;
}

function turned(degrees: number, scale: number, x = 0, y = 0): Affine {
  const [cos, sin] = [scale * Math.cos((degrees * Math.PI) / 180), scale * Math.sin((degrees * Math.PI) / 180)];
  return [cos, -sin, x / WIDTH, sin, cos, y / WIDTH];
}

const KNOWN: [string, Affine][] = [
  ["nothing", IDENTITY],
  ["a shift of half a pixel", turned(0, 1, 0.5, -0.5)],
  ["a shift of 5 pixels", turned(0, 1, 5, -3)],
  ["a leap of 30 pixels", turned(0, 1, 30, 12)],
  ["a turn by 8 degrees", turned(8, 1)],
  ["a step nearer", turned(0, 1.15, 2, 2)],
  ["a turn, a shift and a step back", turned(-6, 0.9, -4, 6)],
];

for (const [name, map] of KNOWN) {
  test(`the tracker finds ${name}`, () => {
    for (const seed of [1, 2, 3]) {
      const found = new Tracker(look(scene(seed), IDENTITY)).track(look(scene(seed), map));
      assert.ok(cornersApart(found.map, map) < 1, `seed ${seed}: ${cornersApart(found.map, map)} pixels apart`);
      assert.ok(found.confidence > 0.9, `seed ${seed}: confidence ${found.confidence}`);
    }
  });
}

test("exposure that changes does not disturb the tracker", () => {
  const map = turned(3, 1, 4, 2);
  const found = new Tracker(look(scene(4), IDENTITY)).track(look(scene(4), map, 0.6, 30));
  assert.ok(cornersApart(found.map, map) < 1);
  assert.ok(found.confidence > 0.9);
});

test("a hand over a quarter of the view does not mislead the tracker", () => {
  const map = turned(0, 1, 6, 3);
  const view = look(scene(5), map);
  for (let y = HEIGHT / 2; y < HEIGHT; y += 1) view.values.fill(200, y * WIDTH, y * WIDTH + WIDTH / 2);
  const found = new Tracker(look(scene(5), IDENTITY)).track(view);
  assert.ok(cornersApart(found.map, map) < 2, `${cornersApart(found.map, map)} pixels apart`);
  assert.ok(found.confidence > 0.1, `confidence ${found.confidence}`);
});

test("a view that wanders is followed all the way, and found again after a look elsewhere", () => {
  const tracker = new Tracker(look(scene(6), IDENTITY));
  let map: Affine = IDENTITY;
  for (let step = 0; step < 12; step += 1) {
    map = compose(turned(1, 1.01, 2, 1), map);
    assert.ok(cornersApart(tracker.track(look(scene(6), map)).map, map) < 1, `step ${step}`);
  }
  assert.equal(tracker.track(look(scene(60), IDENTITY)).confidence, 0);
  assert.ok(cornersApart(tracker.track(look(scene(6), map)).map, map) < 1);
});

test("another scene, and a covered camera, give no confidence", () => {
  for (const seed of [11, 12, 13, 14, 15]) {
    const tracker = new Tracker(look(scene(7), IDENTITY));
    assert.ok(tracker.track(look(scene(seed), IDENTITY)).confidence < 0.2, `seed ${seed}`);
    assert.equal(tracker.track(look(() => 10, IDENTITY)).confidence, 0);
  }
});

test("a map and its inverse make nothing of each other", () => {
  const map = turned(20, 1.3, 7, -4);
  assert.ok(cornersApart(compose(map, inverse(map)), IDENTITY) < 1e-9);
});
