// Draws the icons: the eye with the sign for play. Home screens cut what shape they like out of the square.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { deflateSync } from "node:zlib";

const SAMPLES = 4; // per pixel and direction
const GROUND = [11, 15, 18];
const INK = [95, 227, 194];
const SHADES = 16; // between the two: a pixel has 4 bits

/** Whether a point of the unit square is drawn: the eye's outline of two arcs, and the triangle in it. */
function drawn(x, y) {
  const [u, v] = [x - 0.5, y - 0.5];
  const half = 0.36; // half the eye's width
  const lift = 0.235; // half its height
  const radius = (half * half + lift * lift) / (2 * lift);
  const inside = (margin) =>
    Math.hypot(u, v + radius - lift) < radius - margin && Math.hypot(u, v - radius + lift) < radius - margin;
  return inside(0) && (!inside(0.045) || (u > -0.075 && u + Math.abs(v) * 1.55 < 0.125));
}

/** Returns the pixels of an icon, two a byte, each row after PNG's filter byte 0. */
export function rows(side) {
  const width = side / 2 + 1;
  const data = Buffer.alloc(side * width);
  for (let y = 0; y < side; y += 1) {
    for (let x = 0; x < side; x += 1) {
      let count = 0;
      for (let i = 0; i < SAMPLES * SAMPLES; i += 1) {
        const dx = ((i % SAMPLES) + 0.5) / SAMPLES;
        const dy = (Math.floor(i / SAMPLES) + 0.5) / SAMPLES;
        if (drawn((x + dx) / side, (y + dy) / side)) count += 1;
      }
      const shade = Math.round((count / SAMPLES ** 2) * (SHADES - 1));
      data[y * width + 1 + (x >> 1)] |= shade << (x % 2 ? 0 : 4);
    }
  }
  return data;
}

function palette() {
  const mix = (shade) => GROUND.map((value, i) => Math.round(value + ((INK[i] - value) * shade) / (SHADES - 1)));
  return Buffer.from(Array.from({ length: SHADES }, (_, shade) => mix(shade)).flat());
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
  header.set([4, 3, 0, 0, 0], 8); // 4 bits, palette
  return Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    chunk("IHDR", header),
    chunk("PLTE", palette()),
    chunk("IDAT", deflateSync(rows(side), { level: 9 })),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

const SVG = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100"><rect width="100" height="100" rx="22" fill="#0b0f12"/><g fill="#5fe3c2"><path d="M16.5 50A38.7 38.7 0 0 1 83.5 50A38.7 38.7 0 0 1 16.5 50Z" fill="none" stroke="#5fe3c2" stroke-width="4.5"/><path d="M42.5 37.5v25L62.5 50Z"/></g></svg>
`;

if (import.meta.filename === process.argv[1]) {
  const folder = join(import.meta.dirname, "../../lego_client/web/icons");
  mkdirSync(folder, { recursive: true });
  for (const side of [180, 192, 512]) writeFileSync(join(folder, `icon-${side}.png`), png(side));
  writeFileSync(join(folder, "icon.svg"), SVG);
}
