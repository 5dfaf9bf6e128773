/**
 * Where in the live view is what the asked frame showed: light registration of small grey pictures.
 *
 * An affine map is refined from coarse to fine by Gauss-Newton steps on brightness (inverse compositional, Baker and
 * Matthews 2004), whatever gain and offset the exposure has changed. Where that fails, shifts are tried one by one on the
 * coarsest level. How much of the two views agrees tells how far to trust it.
 */

import type { Grey } from "./sharpness.ts";

/** x' = a x + b y + c, y' = d x + e y + f; lengths in widths of the picture, from its middle. */
export type Affine = readonly [a: number, b: number, c: number, d: number, e: number, f: number];

export const IDENTITY: Affine = [1, 0, 0, 0, 1, 0];

export interface Registration {
  /** From the asked frame to the live view. */
  readonly map: Affine;
  /** In [0, 1]; 0 where the frame is not found. */
  readonly confidence: number;
}

const LOST: Registration = { map: IDENTITY, confidence: 0 };
const LEVELS = 3;
const STEPS = [4, 6, 8]; // at most, from the finest level to the coarsest
const SMALL_STEP = 4e-4; // widths of the picture
const TOLERANCE = 0.5; // standard deviations of the frame: a pixel that far off counts half
const EXPOSURE_PASSES = 3; // gain and offset are estimated anew without what does not fit
// Agreement at which a registration is worth nothing, and at which it is as good as certain.
const WORTHLESS = 0.55;
const CERTAIN = 0.75;
const DOUBTFUL = 0.5; // confidence below which it is looked for elsewhere, too
const LEAST_OVERLAP = 0.3; // of the frame's area
const FARTHEST_SHIFT = 0.5; // widths and heights, tried when lost
const SHIFT_STEP = 2; // pixels of the coarsest level: what lies between is found by refining
const SCALES = [1, 0.8, 1.25];
const FLAT = 2; // standard deviation in grey values below which nothing can be told apart

interface Level extends Grey {
  /** Brightness gradients per width of the picture. */
  readonly dx: Float32Array;
  readonly dy: Float32Array;
}

export class Tracker {
  readonly #frame: Level[];
  #map: Affine = IDENTITY;
  #confidence = 1;

  /** Takes the asked frame; live views must have its size. */
  constructor(frame: Grey) {
    this.#frame = pyramid(frame).map(withGradients);
  }

  /** Finds the frame in a live view, from where it was last. */
  track(view: Grey): Registration {
    const views = pyramid(view);
    const found = this.#confidence > 0 ? this.#refine(views, this.#map) : LOST;
    if (found.confidence >= DOUBTFUL) return this.#keep(found);
    const elsewhere = this.#refine(views, this.#search(views));
    return this.#keep(elsewhere.confidence > found.confidence ? elsewhere : found);
  }

  #keep(found: Registration): Registration {
    this.#map = found.map;
    this.#confidence = found.confidence;
    return found;
  }

  /** Returns the best of many shifts and a few scales, on the coarsest level. */
  #search(views: readonly Grey[]): Affine {
    const frame = this.#frame.at(-1)!;
    const view = views.at(-1)!;
    const { width, height } = frame;
    const [farX, farY] = [Math.round(FARTHEST_SHIFT * width), Math.round(FARTHEST_SHIFT * height)];
    let best: Affine = IDENTITY;
    let most = Number.NEGATIVE_INFINITY;
    for (const scale of SCALES) {
      for (let y = -farY; y <= farY; y += SHIFT_STEP) {
        for (let x = -farX; x <= farX; x += SHIFT_STEP) {
          const map: Affine = [scale, 0, x / width, 0, scale, y / width];
          const { mean, overlap } = judge(frame, view, map, 1);
          // Of shifts that agree about as well, the one that says something of more of the frame.
          const score = mean * Math.min(1, 0.5 + overlap);
          if (overlap >= LEAST_OVERLAP && score > most) {
            most = score;
            best = map;
          }
        }
      }
    }
    return best;
  }

  #refine(views: readonly Grey[], start: Affine): Registration {
    let map = start;
    for (let level = LEVELS - 1; level >= 0; level -= 1) {
      const frame = this.#frame[level]!;
      const view = views[level]!;
      for (let step = 0; step < STEPS[level]!; step += 1) {
        const change = improvement(frame, view, map);
        if (change === null) return LOST;
        map = compose(map, inverse(change));
        if (size(change) < SMALL_STEP) break;
      }
      if (!plausible(map)) return LOST;
    }
    const { mean, overlap } = judge(this.#frame[0]!, views[0]!, map);
    if (overlap < LEAST_OVERLAP) return LOST;
    const confidence = Math.min(1, Math.max(0, (mean - WORTHLESS) / (CERTAIN - WORTHLESS)));
    return confidence > 0 ? { map, confidence } : LOST;
  }
}

/** Returns first `inner`, then `outer`. */
export function compose(outer: Affine, inner: Affine): Affine {
  const [a, b, c, d, e, f] = outer;
  const [g, h, i, j, k, l] = inner;
  return [a * g + b * j, a * h + b * k, a * i + b * l + c, d * g + e * j, d * h + e * k, d * i + e * l + f];
}

/** Returns the map that undoes one. */
export function inverse(map: Affine): Affine {
  const [a, b, c, d, e, f] = map;
  const det = a * e - b * d;
  return [e / det, -b / det, (b * f - c * e) / det, -d / det, a / det, (c * d - a * f) / det];
}

/** Whether a map is one that a hand and a phone can make: no mirror, no fold, no leap. */
function plausible(map: Affine): boolean {
  const [a, b, c, d, e, f] = map;
  const det = a * e - b * d;
  const skew = Math.abs(a * b + d * e) / Math.max(det, 1e-6);
  return map.every(Number.isFinite) && det > 0.2 && det < 5 && skew < 0.5 && Math.hypot(c, f) < 1;
}

/** How far the corners of a picture are moved by a small change of a map. */
function size(change: Affine): number {
  const [a, b, c, d, e, f] = change;
  return Math.hypot(c, f) + 0.5 * (Math.abs(a - 1) + Math.abs(b) + Math.abs(d) + Math.abs(e - 1));
}

interface Overlap {
  /** Pixels of the frame that the view shows. */
  readonly indices: Int32Array;
  /** The view's values there. */
  readonly values: Float32Array;
  readonly count: number;
}

/** Looks up the view where a map puts the frame's pixels. */
function warp(frame: Grey, view: Grey, map: Affine): Overlap {
  const { width, height } = frame;
  const indices = new Int32Array(width * height);
  const values = new Float32Array(width * height);
  const [a, b, c, d, e, f] = map;
  const [middleX, middleY] = [(width - 1) / 2, (height - 1) / 2];
  let count = 0;
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const [u, v] = [x - middleX, y - middleY];
      const toX = a * u + b * v + c * width + middleX;
      const toY = d * u + e * v + f * width + middleY;
      const [left, top] = [Math.floor(toX), Math.floor(toY)];
      if (left < 0 || top < 0 || left >= width - 1 || top >= height - 1) continue;
      const [s, t] = [toX - left, toY - top];
      const i = top * width + left;
      const upper = view.values[i]! * (1 - s) + view.values[i + 1]! * s;
      const lower = view.values[i + width]! * (1 - s) + view.values[i + width + 1]! * s;
      indices[count] = y * width + x;
      values[count] = upper * (1 - t) + lower * t;
      count += 1;
    }
  }
  return { indices, values, count };
}

interface Agreement {
  /** How far the view is from the frame, in grey values of the frame, for each pixel seen. */
  readonly errors: Float32Array;
  /** How much each counts, in [0, 1]: what has changed, such as a hand, counts little. */
  readonly weights: Float32Array;
  /** Mean of the weights: near 1 where all agrees. */
  readonly mean: number;
}

/** Compares the frame with what a view shows of it, whatever the exposure; null where either is flat. */
function agreement(frame: Grey, seen: Overlap, passes = EXPOSURE_PASSES): Agreement | null {
  const { indices, values, count } = seen;
  const errors = new Float32Array(count);
  const weights = new Float32Array(count).fill(1);
  let mean = 0;
  for (let pass = 0; pass < passes; pass += 1) {
    let [total, sumF, sumV, squaresF, squaresV] = [0, 0, 0, 0, 0];
    for (let n = 0; n < count; n += 1) {
      const [w, p, q] = [weights[n]!, frame.values[indices[n]!]!, values[n]!];
      total += w;
      sumF += w * p;
      sumV += w * q;
      squaresF += w * p * p;
      squaresV += w * q * q;
    }
    const [meanF, meanV] = [sumF / total, sumV / total];
    const deviationF = Math.sqrt(Math.max(0, squaresF / total - meanF * meanF));
    const deviationV = Math.sqrt(Math.max(0, squaresV / total - meanV * meanV));
    if (!(deviationF >= FLAT && deviationV >= FLAT)) return null;
    const gain = deviationF / deviationV;
    mean = 0;
    for (let n = 0; n < count; n += 1) {
      const error = (values[n]! - meanV) * gain + meanF - frame.values[indices[n]!]!;
      const weight = 1 / (1 + (error / (TOLERANCE * deviationF)) ** 2);
      errors[n] = error;
      weights[n] = weight;
      mean += weight / count;
    }
  }
  return { errors, weights, mean };
}

function judge(frame: Grey, view: Grey, map: Affine, passes = EXPOSURE_PASSES): { mean: number; overlap: number } {
  const seen = warp(frame, view, map);
  const overlap = seen.count / (frame.width * frame.height);
  return { mean: (seen.count > 0 && agreement(frame, seen, passes)?.mean) || 0, overlap };
}

/** Returns the change of the frame's own coordinates that explains best how the view differs; null if nothing can. */
function improvement(frame: Level, view: Grey, map: Affine): Affine | null {
  const seen = warp(frame, view, map);
  const { width, height, dx, dy } = frame;
  if (seen.count < LEAST_OVERLAP * width * height) return null;
  const agreed = agreement(frame, seen);
  if (agreed === null) return null;
  const [middleX, middleY] = [(width - 1) / 2, (height - 1) / 2];
  const normal = new Float64Array(36);
  const right = new Float64Array(6);
  const slope = new Float64Array(6);
  for (let n = 0; n < seen.count; n += 1) {
    const i = seen.indices[n]!;
    const [u, v] = [((i % width) - middleX) / width, (Math.floor(i / width) - middleY) / width];
    const [error, weight] = [agreed.errors[n]!, agreed.weights[n]!];
    slope[0] = dx[i]! * u;
    slope[1] = dx[i]! * v;
    slope[2] = dx[i]!;
    slope[3] = dy[i]! * u;
    slope[4] = dy[i]! * v;
    slope[5] = dy[i]!;
    for (let r = 0; r < 6; r += 1) {
      const weighted = weight * slope[r]!;
      right[r] = right[r]! + weighted * error;
      for (let c = r; c < 6; c += 1) normal[6 * r + c] = normal[6 * r + c]! + weighted * slope[c]!;
    }
  }
  for (let r = 0; r < 6; r += 1) {
    for (let c = 0; c < r; c += 1) normal[6 * r + c] = normal[6 * c + r]!;
    normal[7 * r] = normal[7 * r]! * 1.001 + 1e-6;
  }
  const solved = solve(normal, right);
  if (solved === null) return null;
  const [a, b, c, d, e, f] = solved;
  return [1 + a!, b!, c!, d!, 1 + e!, f!];
}

/** Solves a symmetric positive definite system of six equations, by Gauss's elimination; null where it has no answer. */
function solve(matrix: Float64Array, right: Float64Array): Float64Array | null {
  const n = right.length;
  for (let r = 0; r < n; r += 1) {
    const pivot = matrix[n * r + r]!;
    if (!(Math.abs(pivot) > 1e-9)) return null;
    for (let below = r + 1; below < n; below += 1) {
      const factor = matrix[n * below + r]! / pivot;
      for (let c = r; c < n; c += 1) matrix[n * below + c] = matrix[n * below + c]! - factor * matrix[n * r + c]!;
      right[below] = right[below]! - factor * right[r]!;
    }
  }
  for (let r = n - 1; r >= 0; r -= 1) {
    for (let c = r + 1; c < n; c += 1) right[r] = right[r]! - matrix[n * r + c]! * right[c]!;
    right[r] = right[r]! / matrix[n * r + r]!;
  }
  return right;
}

/** Returns a picture and its halves, finest first, each a little smoothed. */
function pyramid(grey: Grey): Grey[] {
  const levels = [smooth(grey)];
  while (levels.length < LEVELS) levels.push(smooth(half(levels.at(-1)!)));
  return levels;
}

function half(grey: Grey): Grey {
  const [width, height] = [grey.width >> 1, grey.height >> 1];
  const values = new Float32Array(width * height);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const i = 2 * y * grey.width + 2 * x;
      const sum =
        grey.values[i]! + grey.values[i + 1]! + grey.values[i + grey.width]! + grey.values[i + grey.width + 1]!;
      values[y * width + x] = sum / 4;
    }
  }
  return { width, height, values };
}

/** Means of three by three. */
function smooth(grey: Grey): Grey {
  const { width, height } = grey;
  const values = new Float32Array(width * height);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      let [sum, count] = [0, 0];
      for (let j = Math.max(0, y - 1); j <= Math.min(height - 1, y + 1); j += 1) {
        for (let i = Math.max(0, x - 1); i <= Math.min(width - 1, x + 1); i += 1) {
          sum += grey.values[j * width + i]!;
          count += 1;
        }
      }
      values[y * width + x] = sum / count;
    }
  }
  return { width, height, values };
}

function withGradients(grey: Grey): Level {
  const { width, height, values } = grey;
  const dx = new Float32Array(width * height);
  const dy = new Float32Array(width * height);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const i = y * width + x;
      if (x > 0 && x < width - 1) dx[i] = ((values[i + 1]! - values[i - 1]!) / 2) * width;
      if (y > 0 && y < height - 1) dy[i] = ((values[i + width]! - values[i - width]!) / 2) * width;
    }
  }
  return { ...grey, dx, dy };
}
