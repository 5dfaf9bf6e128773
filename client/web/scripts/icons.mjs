// Draws the icons into public/icons: the eye with the sign for play, on a rounded or full square.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { deflateSync } from "node:zlib";

const SAMPLES = 4; // per pixel and direction
const GROUND = [11, 15, 18];
const BRIGHT = [143, 245, 218];
const DEEP = [47, 191, 156];

/** Colour at a point of the unit square: the ground, the eye's outline of two arcs, the triangle in it. */
function colourAt(x, y) {
  const [u, v] = [x - 0.5, y - 0.5];
  const half = 0.36; // half the eye's width
  const lift = 0.235; // half its height
  const radius = (half * half + lift * lift) / (2 * lift);
  const inside = (margin) =>
    Math.hypot(u, v + radius - lift) < radius - margin && Math.hypot(u, v - radius + lift) < radius - margin;
  const play = u > -0.075 && u + Math.abs(v) * 1.55 < 0.125;
  if (!(inside(0) && (!inside(0.045) || play))) return GROUND;
  const mix = Math.min(1, Math.max(0, 0.5 + 0.75 * (u + v)));
  return BRIGHT.map((value, i) => Math.round(value + (DEEP[i] - value) * mix));
}

/** Returns the pixels of an icon: RGB rows, each after PNG's filter byte 0. */
export function rows(side) {
  const data = Buffer.alloc(side * (3 * side + 1));
  for (let y = 0; y < side; y += 1) {
    for (let x = 0; x < side; x += 1) {
      const sum = [0, 0, 0];
      for (let i = 0; i < SAMPLES * SAMPLES; i += 1) {
        const dx = ((i % SAMPLES) + 0.5) / SAMPLES;
        const dy = (Math.floor(i / SAMPLES) + 0.5) / SAMPLES;
        const colour = colourAt((x + dx) / side, (y + dy) / side);
        for (let c = 0; c < 3; c += 1) sum[c] += colour[c];
      }
      for (let c = 0; c < 3; c += 1) data[y * (3 * side + 1) + 1 + 3 * x + c] = Math.round(sum[c] / SAMPLES ** 2);
    }
  }
  return data;
}

function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) {
    value ^= byte;
    for (let bit = 0; bit < 8; bit += 1) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
  }
  return (value ^ 0xffffffff) >>> 0;
}

function chunk(kind, content) {
  const body = Buffer.concat([Buffer.from(kind), content]);
  const whole = Buffer.alloc(body.length + 8);
  whole.writeUInt32BE(content.length, 0);
  body.copy(whole, 4);
  whole.writeUInt32BE(crc(body), body.length + 4);
  return whole;
}

function png(side) {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(side, 0);
  header.writeUInt32BE(side, 4);
  header.set([8, 2, 0, 0, 0], 8); // 8 bits, RGB
  return Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    chunk("IHDR", header),
    chunk("IDAT", deflateSync(rows(side), { level: 9 })),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

const SVG =
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100"><defs><linearGradient id="g" x1="0" y1="0" x2="1" y2="1"><stop stop-color="#8ff5da"/><stop offset="1" stop-color="#2fbf9c"/></linearGradient></defs><rect width="100" height="100" rx="22" fill="#0b0f12"/><path d="M16.500 50A38.700 38.700 0 0 1 83.500 50A38.700 38.700 0 0 1 16.500 50Z" fill="none" stroke="url(#g)" stroke-width="4.500"/><path d="M42.500 37.500v25L62.500 50Z" fill="url(#g)"/></svg>
`.replace(/(\d\.\d)00\b/g, "$1");

if (import.meta.filename === process.argv[1]) {
  const folder = join(import.meta.dirname, "../public/icons");
  mkdirSync(folder, { recursive: true });
  for (const side of [180, 192, 512]) writeFileSync(join(folder, `icon-${side}.png`), png(side));
  writeFileSync(join(folder, "icon.svg"), SVG);
}
