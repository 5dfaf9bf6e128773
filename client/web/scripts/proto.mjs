// Generates the protocol's TypeScript from proto/lego_proto/v1/guidance.proto. Needs Python with grpcio-tools (make proto).
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const web = join(import.meta.dirname, "..");
const out = mkdtempSync(join(tmpdir(), "lego-proto-"));
execFileSync(
  process.env.PYTHON ?? "python3",
  [
    "-m",
    "grpc_tools.protoc",
    `-I${join(web, "../../proto")}`,
    `--plugin=protoc-gen-es=${join(web, "node_modules/.bin/protoc-gen-es")}`,
    `--es_out=${out}`,
    "--es_opt=target=ts",
    "lego_proto/v1/guidance.proto",
  ],
  { stdio: "inherit" },
);
copyFileSync(join(out, "lego_proto/v1/guidance_pb.ts"), join(web, "src/proto/guidance_pb.ts"));
rmSync(out, { recursive: true });
