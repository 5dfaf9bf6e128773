/** Which of a few neighbouring views is sharp: a hand that moves blurs many of a phone's (LEGO, section 4.1). */

/** A small grey picture: `width * height` values in [0, 255], row by row. */
export interface Grey {
  readonly width: number;
  readonly height: number;
  readonly values: Float32Array;
}

const AS_SHARP = 0.95; // a newer view this close to the sharpest shows the present better
// Brightness in [0, 255] and contrast below which a camera as good as sees nothing.
const DARK = 20;
const FLAT = 6;

/** Returns the luma of canvas pixels, RGBA in [0, 255]. */
export function toGrey(pixels: { width: number; height: number; data: Uint8ClampedArray }): Grey {
  const { width, height, data } = pixels;
  const values = new Float32Array(width * height);
  for (let i = 0, j = 0; i < values.length; i += 1, j += 4) {
    values[i] = 0.299 * data[j]! + 0.587 * data[j + 1]! + 0.114 * data[j + 2]!;
  }
  return { width, height, values };
}

/** Returns the variance of the Laplacian: higher is sharper, 0 is a flat picture. Compares only within one camera. */
export function sharpness(grey: Grey): number {
  const { width, height, values } = grey;
  let sum = 0;
  let squares = 0;
  for (let y = 1; y < height - 1; y += 1) {
    for (let x = 1; x < width - 1; x += 1) {
      const i = y * width + x;
      const laplacian = values[i - 1]! + values[i + 1]! + values[i - width]! + values[i + width]! - 4 * values[i]!;
      sum += laplacian;
      squares += laplacian * laplacian;
    }
  }
  const count = (width - 2) * (height - 2);
  if (count <= 0) return 0;
  return squares / count - (sum / count) ** 2;
}

/** Returns the place of the sharpest of some scores, oldest first; of those about as sharp, the newest. */
export function sharpest(scores: readonly number[]): number {
  const enough = AS_SHARP * Math.max(...scores);
  for (let i = scores.length - 1; i > 0; i -= 1) if (scores[i]! >= enough) return i;
  return 0;
}

/** Whether a view is so dark and so flat that its camera must be covered, or its room without light. */
export function isDark(grey: Grey): boolean {
  let sum = 0;
  let squares = 0;
  for (const value of grey.values) {
    sum += value;
    squares += value * value;
  }
  const mean = sum / grey.values.length;
  return mean < DARK && Math.sqrt(Math.max(0, squares / grey.values.length - mean * mean)) < FLAT;
}
