// Builds the page into client/lego_client/web, or into the folder given. The same sources give the same bytes.
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { build } from "esbuild";

const web = join(import.meta.dirname, "..");
const out = resolve(process.argv[2] ?? join(web, "../lego_client/web"));
const usual = {
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "none",
  logLevel: "warning",
};

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
cpSync(join(web, "public"), out, { recursive: true });
const { metafile } = await build({
  ...usual,
  absWorkingDir: web,
  entryPoints: { app: "src/main.ts" },
  outdir: out,
  metafile: true,
});
await build({
  ...usual,
  target: ["chrome111", "safari16.4", "firefox121"],
  absWorkingDir: web,
  entryPoints: ["src/app.css"],
  outdir: out,
});

const files = readdirSync(out, { recursive: true, withFileTypes: true })
  .filter((each) => each.isFile())
  .map((each) => join(each.parentPath, each.name).slice(out.length + 1))
  .sort();
const digest = createHash("sha256");
for (const name of files) digest.update(name).update(readFileSync(join(out, name)));
await build({
  ...usual,
  absWorkingDir: web,
  entryPoints: { sw: "src/sw.ts" },
  outdir: out,
  define: {
    SHELL: JSON.stringify(["./", ...files.filter((name) => name !== "index.html")]),
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
