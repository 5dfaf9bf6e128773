// Builds app.js, app.css and sw.js beside the page's other files, which are kept as they are. Same sources, same bytes.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { build } from "esbuild";

const web = join(import.meta.dirname, "..");
const out = join(web, "../lego_client/web");
const usual = {
  absWorkingDir: web,
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["chrome111", "safari16.4", "firefox121"],
  legalComments: "none",
  logLevel: "warning",
};

const { metafile } = await build({
  ...usual,
  entryPoints: [
    { in: "src/main.ts", out: "app" },
    { in: "src/app.css", out: "app" },
  ],
  metafile: true,
});

// The shell is all that the page loads; its digest makes the service worker another one when any of it changes.
const shell = readdirSync(out, { recursive: true, withFileTypes: true })
  .filter((each) => each.isFile())
  .map((each) => relative(out, join(each.parentPath, each.name)))
  .filter((name) => name !== "sw.js" && name !== "NOTICE.txt")
  .sort();
const digest = createHash("sha256");
for (const name of shell) digest.update(name).update(readFileSync(join(out, name)));
await build({
  ...usual,
  entryPoints: { sw: "src/sw.ts" },
  define: {
    SHELL: JSON.stringify(shell.map((name) => (name === "index.html" ? "./" : name))),
    DIGEST: JSON.stringify(digest.digest("hex").slice(0, 16)),
  },
});

// What others have written and the page carries: their notices go along with it.
const notices = Object.keys(metafile.inputs)
  .filter((name) => name.includes("node_modules/"))
  .map((name) => /^(\/\/.*\n)+/.exec(readFileSync(join(web, name), "utf8"))?.[0] ?? "")
  .map((header) => header.replaceAll(/^\/\/ ?/gm, ""));
const uses = "app.js contains parts of @bufbuild/protobuf, whose files say:\n\n";
writeFileSync(join(out, "NOTICE.txt"), uses + [...new Set(notices)].sort().join("\n"));
