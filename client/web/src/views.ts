/** The last few views of a live camera, ready to be sent, with how sharp each is. */

import { type Grey, isDark, sharpest, sharpness, toGrey } from "./sharpness.ts";

const KEPT = 5;
const PERIOD_MS = 120;
const SCORED_SIDE = 192; // pixels: blur that matters is still seen, sensor noise no longer is
const DARK_VIEWS = 12; // in a row, before it is said

interface View {
  readonly canvas: HTMLCanvasElement;
  score: number;
}

export class Views {
  readonly #video: HTMLVideoElement;
  readonly #onDark: (dark: boolean) => void;
  readonly #small = document.createElement("canvas");
  readonly #drawSmall = this.#small.getContext("2d", { willReadFrequently: true })!;
  #longestSide = 1024;
  #views: View[] = [];
  #timer = 0;
  #darkViews = 0;
  #dark = false;

  constructor(video: HTMLVideoElement, onDark: (dark: boolean) => void) {
    this.#video = video;
    this.#onDark = onDark;
  }

  /** Begins to look, at pictures of at most this longer side. */
  start(longestSide: number): void {
    this.stop();
    this.#longestSide = longestSide;
    this.#timer = window.setInterval(() => this.#look(), PERIOD_MS);
  }

  stop(): void {
    window.clearInterval(this.#timer);
    this.#views = [];
    this.#darkViews = 0;
    this.#dark = false;
  }

  /** Returns a copy of the sharpest of the last views; null before the first. */
  sharpest(): HTMLCanvasElement | null {
    if (this.#views.length === 0) this.#look();
    const view = this.#views[sharpest(this.#views.map((each) => each.score))];
    if (view === undefined) return null;
    const copy = document.createElement("canvas");
    copy.width = view.canvas.width;
    copy.height = view.canvas.height;
    copy.getContext("2d")!.drawImage(view.canvas, 0, 0);
    return copy;
  }

  #look(): void {
    const { videoWidth, videoHeight } = this.#video;
    if (videoWidth === 0 || document.hidden) return;
    const scale = Math.min(1, this.#longestSide / Math.max(videoWidth, videoHeight));
    const view =
      this.#views.length < KEPT ? { canvas: document.createElement("canvas"), score: 0 } : this.#views.shift()!;
    view.canvas.width = Math.round(videoWidth * scale);
    view.canvas.height = Math.round(videoHeight * scale);
    view.canvas.getContext("2d")!.drawImage(this.#video, 0, 0, view.canvas.width, view.canvas.height);
    const grey = greyOf(this.#video, videoWidth, videoHeight, SCORED_SIDE, this.#drawSmall);
    view.score = sharpness(grey);
    this.#views.push(view);
    this.#judge(isDark(grey));
  }

  #judge(dark: boolean): void {
    this.#darkViews = dark ? this.#darkViews + 1 : 0;
    if (this.#dark !== this.#darkViews >= DARK_VIEWS) {
      this.#dark = !this.#dark;
      this.#onDark(this.#dark);
    }
  }
}

/** Returns a small grey copy of a picture whose longer side is at most `side`; draws on the context's canvas. */
export function greyOf(
  source: CanvasImageSource,
  width: number,
  height: number,
  side: number,
  context: CanvasRenderingContext2D,
): Grey {
  const scale = Math.min(1, side / Math.max(width, height));
  const [w, h] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
  if (context.canvas.width !== w || context.canvas.height !== h) {
    context.canvas.width = w;
    context.canvas.height = h;
  }
  context.drawImage(source, 0, 0, w, h);
  return toGrey(context.getImageData(0, 0, w, h));
}
