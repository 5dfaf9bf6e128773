import assert from "node:assert/strict";
import { test } from "node:test";
import { Camera } from "../src/camera.ts";
import { Wake } from "../src/wake.ts";
import { settled } from "./scripted.ts";

/** Puts devices of a test's own where a browser has its own. */
function browser(navigator: object): void {
  Object.defineProperty(globalThis, "navigator", { value: navigator, configurable: true });
  Object.defineProperty(globalThis, "document", { value: new EventTarget(), configurable: true });
}

test("a camera that is turned off while the next one is looked for stays off", async () => {
  let opened = 0;
  const mediaDevices = {
    enumerateDevices: async () => [],
    getUserMedia: async () => {
      opened += 1;
      return { getTracks: () => [], getVideoTracks: () => [] };
    },
  };
  browser({ mediaDevices });
  const camera = new Camera({ play: async () => {} } as unknown as HTMLVideoElement, () => {});
  const next = camera.next();
  camera.stop();
  assert.equal(await next, false);
  assert.equal(opened, 0);
});

test("the screen may go off if the camera went off before the lock was there", async () => {
  let held = 0;
  const request = async () => {
    held += 1;
    const release = async () => {
      held -= 1;
    };
    return { released: false, release };
  };
  browser({ wakeLock: { request } });
  const wake = new Wake();
  wake.want(true);
  wake.want(false);
  await settled();
  assert.equal(held, 0);
});
