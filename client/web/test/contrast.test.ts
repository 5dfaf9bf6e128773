import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const AA_TEXT = 4.5;
const AA_EDGE = 3; // of what shows where a control is

const css = readFileSync(`${process.env.LEGO_WEB}/src/app.css`, "utf8");
const [dark, light] = [...css.matchAll(/:root \{([^}]*)\}/g)].map(([, rules]) =>
  Object.fromEntries([...rules!.matchAll(/--([\w-]+): (#[0-9a-f]+);/g)].map(([, name, value]) => [name, value])),
);

function luminance(colour: string): number {
  const hex = colour.length === 4 ? [...colour.slice(1)].map((each) => each + each).join("") : colour.slice(1);
  const [r, g, b] = [0, 2, 4]
    .map((at) => Number.parseInt(hex.slice(at, at + 2), 16) / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;
}

function contrast(one: string, other: string): number {
  const [darker, lighter] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (lighter! + 0.05) / (darker! + 0.05);
}

for (const [scheme, colours] of Object.entries({ dark, light })) {
  test(`what is written in the ${scheme} scheme can be read`, () => {
    assert.ok(colours);
    const seen = (name: string) => colours[name]!;
    for (const ground of ["ground", "panel", "raised"]) {
      for (const ink of ["text", "muted", "accent", "warn", "bad"]) {
        const found = contrast(seen(ink), seen(ground));
        assert.ok(found >= AA_TEXT, `${ink} on ${ground}: ${found.toFixed(2)}`);
      }
      const edge = contrast(seen("edge"), seen(ground));
      assert.ok(edge >= AA_EDGE, `edge on ${ground}: ${edge.toFixed(2)}`);
    }
    assert.ok(contrast(seen("on-accent"), seen("accent")) >= AA_TEXT);
  });
}
