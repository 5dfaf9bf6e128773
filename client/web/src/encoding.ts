/** From a picture on a canvas to the JPEG that travels, within the server's limits. */

/** A frame ready to send. */
export interface EncodedFrame {
  readonly jpeg: Uint8Array<ArrayBuffer>;
  readonly width: number;
  readonly height: number;
}

/** What a server takes, 0 where it has no limit of its own; and the longer side that the wearer wishes. */
export interface Limits {
  maxBytes: number;
  maxPixels: number;
  longestSide: number;
}

/** Cannot be sent, with a sentence that says why and what to do. */
export class UnfitFrame extends Error {}

const QUALITY = 0.88;
const LOWEST_QUALITY = 0.4;
const SHORTEST_SIDE = 8; // pixels: what a server accepts at least
const MOST_SLENDER = 32;

/** Returns the size at which a picture travels: bounded in its longer side and its area, never scaled up. */
export function fit(
  width: number,
  height: number,
  longestSide: number,
  maxPixels: number,
): { width: number; height: number } {
  let scale = Math.min(1, longestSide / Math.max(width, height));
  if (maxPixels > 0) scale = Math.min(scale, Math.sqrt(maxPixels / (width * height)));
  // Rounded down, so that the area never passes the limit.
  const fitted = { width: Math.floor(width * scale + 1e-9), height: Math.floor(height * scale + 1e-9) };
  const [shorter, longer] = [Math.min(fitted.width, fitted.height), Math.max(fitted.width, fitted.height)];
  if (shorter < SHORTEST_SIDE || longer > MOST_SLENDER * shorter) {
    throw new UnfitFrame(`The picture is ${width} × ${height} pixels, too small or too narrow. Use another one.`);
  }
  return fitted;
}

/** How a canvas becomes a JPEG; a browser's `toBlob`, or a test's own. */
export type Encode = (width: number, height: number, quality: number) => Promise<Uint8Array<ArrayBuffer>>;

/** Encodes a picture that fits, at lower quality, then smaller, until it has few enough bytes. */
export async function encodeWithin(
  width: number,
  height: number,
  limits: Limits,
  encode: Encode,
): Promise<EncodedFrame> {
  let quality = QUALITY;
  let size = fit(width, height, limits.longestSide, limits.maxPixels);
  for (;;) {
    const jpeg = await encode(size.width, size.height, quality);
    if (!limits.maxBytes || jpeg.length <= limits.maxBytes) return { jpeg, ...size };
    if (quality > LOWEST_QUALITY) quality = Math.max(LOWEST_QUALITY, quality - 0.12);
    else size = fit(size.width, size.height, 0.8 * Math.max(size.width, size.height), limits.maxPixels);
  }
}

/** Encodes what is on a canvas. */
export function encodeCanvas(canvas: HTMLCanvasElement, limits: Limits): Promise<EncodedFrame> {
  return encodeWithin(canvas.width, canvas.height, limits, async (width, height, quality) => {
    let source = canvas;
    if (width !== canvas.width || height !== canvas.height) {
      source = document.createElement("canvas");
      source.width = width;
      source.height = height;
      source.getContext("2d")!.drawImage(canvas, 0, 0, width, height);
    }
    const blob = await new Promise<Blob | null>((resolve) => source.toBlob(resolve, "image/jpeg", quality));
    if (blob === null) throw new UnfitFrame("This browser could not turn the picture into a JPEG. Try again.");
    return new Uint8Array(await blob.arrayBuffer());
  });
}
