/** The guidance frame over the live view, where the asked frame is found in it; faded out where it is not. */

import type { Grey } from "./sharpness.ts";
import { toGrey } from "./sharpness.ts";
import { type Affine, Tracker } from "./tracker.ts";
import { greyOf } from "./views.ts";

const TRACKED_SIDE = 96; // pixels
const SEEK_EVERY = 4; // views, while the frame is not found: to look everywhere takes longer
const FADE = 0.25; // of the way to the present confidence, each view: no flicker
// Differences between guidance and asked frame, in [0, 255], that the mask leaves out, and that it shows in full.
const SAME = 18;
const CHANGED = 56;
const MASK_SIDE = 160; // pixels
const GLOW = "rgb(95 227 194)";

export class Ghost {
  readonly #video: HTMLVideoElement;
  readonly #canvas: HTMLCanvasElement;
  readonly #tell: (confidence: number) => void;
  readonly #small = document.createElement("canvas").getContext("2d", { willReadFrequently: true })!;
  #picture: HTMLCanvasElement | null = null;
  #tracker: Tracker | null = null;
  #shown = 0;
  #request = 0;
  #busy = false;
  #views = 0;
  #lost = false;
  /** How strong the picture is at full confidence, in [0, 1]. */
  strength = 0.8;

  /** Takes the live view, the canvas over it, and whom to tell how sure the overlay is. */
  constructor(video: HTMLVideoElement, canvas: HTMLCanvasElement, tell: (confidence: number) => void) {
    this.#video = video;
    this.#canvas = canvas;
    this.#tell = tell;
  }

  /** Begins to show a guidance frame over the view in which its asked frame is looked for. */
  start(frame: ImageBitmap, guidance: ImageBitmap, onlyChanges: boolean): void {
    this.stop();
    this.#picture = onlyChanges ? changesOf(frame, guidance) : whole(frame, guidance);
    this.#tracker = new Tracker(greyOf(frame, frame.width, frame.height, TRACKED_SIDE, this.#small));
    this.#shown = 0;
    const loop = () => {
      this.#request = requestAnimationFrame(loop);
      this.#draw();
    };
    this.#request = requestAnimationFrame(loop);
  }

  stop(): void {
    cancelAnimationFrame(this.#request);
    this.#tracker = null;
    this.#picture = null;
    this.#canvas.getContext("2d")!.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
  }

  #draw(): void {
    const [tracker, picture] = [this.#tracker, this.#picture];
    const { videoWidth, videoHeight } = this.#video;
    if (tracker === null || picture === null || videoWidth === 0 || this.#busy) return;
    // Every other refresh is enough for a hand-held view, and leaves the phone time for the rest.
    this.#busy = true;
    requestAnimationFrame(() => {
      this.#busy = false;
    });
    this.#views += 1;
    if (this.#lost && this.#views % SEEK_EVERY !== 0) return;
    const view = greyOf(this.#video, videoWidth, videoHeight, TRACKED_SIDE, this.#small);
    const { map, confidence } = sameShape(view, picture) ? tracker.track(view) : { map: null, confidence: 0 };
    this.#lost = confidence === 0;
    this.#shown += (confidence - this.#shown) * FADE;
    this.#tell(this.#shown);
    const canvas = this.#canvas;
    if (canvas.width !== videoWidth || canvas.height !== videoHeight) {
      canvas.width = videoWidth;
      canvas.height = videoHeight;
    }
    const context = canvas.getContext("2d")!;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (map === null || this.#shown < 0.02) return;
    context.globalAlpha = this.strength * this.#shown;
    place(context, map, canvas.width, canvas.height);
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  }
}

/** Lets what is drawn over the whole canvas go where a map puts it. */
function place(context: CanvasRenderingContext2D, map: Affine, width: number, height: number): void {
  const [a, b, c, d, e, f] = map;
  context.setTransform(1, 0, 0, 1, width / 2, height / 2);
  context.transform(a, d, b, e, c * width, f * width);
  context.translate(-width / 2, -height / 2);
}

/** Whether view and picture have one aspect ratio, but for rounding: a phone that was turned cannot be registered. */
function sameShape(view: Grey, picture: HTMLCanvasElement): boolean {
  return Math.abs(view.width / view.height / (picture.width / picture.height) - 1) < 0.05;
}

function whole(frame: ImageBitmap, guidance: ImageBitmap): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = frame.width;
  canvas.height = frame.height;
  canvas.getContext("2d")!.drawImage(guidance, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** Returns the guidance frame, transparent where it shows what the asked frame showed. */
function changesOf(frame: ImageBitmap, guidance: ImageBitmap): HTMLCanvasElement {
  const scale = Math.min(1, MASK_SIDE / Math.max(frame.width, frame.height));
  const mask = document.createElement("canvas");
  mask.width = Math.max(1, Math.round(frame.width * scale));
  mask.height = Math.max(1, Math.round(frame.height * scale));
  const context = mask.getContext("2d", { willReadFrequently: true })!;
  const read = (picture: ImageBitmap) => {
    context.drawImage(picture, 0, 0, mask.width, mask.height);
    return toGrey(context.getImageData(0, 0, mask.width, mask.height));
  };
  const [before, after] = [read(frame), read(guidance)];
  const pixels = context.createImageData(mask.width, mask.height);
  for (let i = 0; i < before.values.length; i += 1) {
    const change = Math.abs(after.values[i]! - before.values[i]!);
    pixels.data[4 * i + 3] = 255 * Math.min(1, Math.max(0, (change - SAME) / (CHANGED - SAME)));
  }
  context.putImageData(pixels, 0, 0);
  const canvas = whole(frame, guidance);
  const over = canvas.getContext("2d")!;
  over.globalCompositeOperation = "destination-in";
  over.filter = `blur(${Math.round(canvas.width / 60)}px)`;
  over.drawImage(mask, 0, 0, canvas.width, canvas.height);
  return glowing(canvas);
}

/** Returns a picture with a rim of light around what of it can be seen. */
function glowing(picture: HTMLCanvasElement): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = picture.width;
  canvas.height = picture.height;
  const context = canvas.getContext("2d")!;
  context.shadowColor = GLOW;
  context.shadowBlur = canvas.width / 40;
  context.drawImage(picture, 0, 0);
  return canvas;
}
