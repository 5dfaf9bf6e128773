/**
 * The messages of proto/lego_proto/v1/guidance.proto that travel between page and server, with their fields.
 *
 * Written by hand; tests/client/test_web.py compares each of them with the proto file. Of a `oneof` one field is set.
 */

import type { Message, Schema } from "./codec.ts";

const schema = <const S extends Schema>(fields: S): S => fields;

export const Frame = schema({ frameId: [1, "uint64"], image: [2, "bytes"] });

export const GuidanceInterval = schema({ low: [1, "float"], high: [2, "float"] });

export const GuidanceOptions = schema({
  seed: [1, "uint64", "optional"],
  steps: [2, "uint32", "optional"],
  textScale: [3, "float", "optional"],
  imageScale: [4, "float", "optional"],
  sampler: [5, "enum", "optional"],
  previewEvery: [6, "uint32", "optional"],
  description: [7, "string", "optional"],
  jpegQuality: [8, "uint32", "optional"],
  fidelity: [9, "enum"],
  preview: [10, "enum"],
  preset: [11, "enum"],
  guidanceInterval: [12, GuidanceInterval],
  cacheInterval: [13, "uint32", "optional"],
});

export const Query = schema({
  queryId: [1, "uint64"],
  text: [2, "string"],
  frameId: [3, "uint64", "optional"],
  options: [4, GuidanceOptions],
  deadlineMs: [5, "uint32", "optional"],
  model: [6, "string"],
});

export const Cancel = schema({ queryId: [1, "uint64"] });

export const Resume = schema({ token: [1, "string"], received: [2, "uint64"] });

export const GuideRequest = schema({ frame: [1, Frame], query: [2, Query], cancel: [3, Cancel], resume: [4, Resume] });

export const Speech = schema({ recogniser: [1, "string"], maxUtteranceMs: [2, "uint32"] });

export const ServerInfo = schema({
  modelName: [1, "string"],
  modelVersion: [2, "string"],
  engine: [3, "string"],
  resolution: [4, "uint32"],
  maxSteps: [5, "uint32"],
  maxImageBytes: [6, "uint32"],
  maxImagePixels: [7, "uint64"],
  maxQueryCharacters: [8, "uint32"],
  defaults: [9, GuidanceOptions],
  notice: [10, "string"],
  models: [11, "string", "repeated"],
  maxDeadlineMs: [12, "uint32"],
  fastPreviews: [13, "bool"],
  presets: [14, GuidanceOptions, "repeated"],
  speech: [15, Speech],
});

export const SessionStarted = schema({
  sessionId: [1, "string"],
  server: [2, ServerInfo],
  resumeToken: [3, "string"],
  resumeSeconds: [4, "float"],
  resumed: [5, "bool"],
  frameCredits: [6, "uint32"],
});

export const FrameReceived = schema({ frameId: [1, "uint64"] });

export const DescriptionDelta = schema({ queryId: [1, "uint64"], text: [2, "string"], done: [3, "bool"] });

export const Progress = schema({
  queryId: [1, "uint64"],
  step: [2, "uint32"],
  steps: [3, "uint32"],
  preview: [4, "bytes"],
});

export const Timings = schema({
  queueMs: [1, "float"],
  encodeMs: [2, "float"],
  describeMs: [3, "float"],
  conditionMs: [4, "float"],
  denoiseMs: [5, "float"],
  decodeMs: [6, "float"],
  totalMs: [7, "float"],
});

export const GuidanceResult = schema({
  queryId: [1, "uint64"],
  frameId: [2, "uint64"],
  description: [3, "string"],
  image: [4, "bytes"],
  width: [5, "uint32"],
  height: [6, "uint32"],
  seed: [7, "uint64"],
  steps: [8, "uint32"],
  textScale: [9, "float"],
  imageScale: [10, "float"],
  sampler: [11, "enum"],
  modelVersion: [12, "string"],
  timings: [13, Timings],
  fidelity: [14, "enum"],
  guidanceInterval: [15, GuidanceInterval],
  cacheInterval: [16, "uint32"],
});

export const QueryError = schema({
  queryId: [1, "uint64"],
  code: [2, "enum"],
  message: [3, "string"],
  retryAfterMs: [4, "uint32"],
});

/** `QueryError.Code`. */
export const Code = {
  UNSPECIFIED: 0,
  INVALID: 1,
  NO_FRAME: 2,
  UNKNOWN_QUERY: 3,
  CANCELLED: 4,
  SUPERSEDED: 5,
  OVERLOADED: 6,
  INTERNAL: 7,
  DEADLINE_EXCEEDED: 8,
  UNAVAILABLE: 9,
} as const;

export const GuideResponse = schema({
  sessionStarted: [1, SessionStarted],
  descriptionDelta: [2, DescriptionDelta],
  progress: [3, Progress],
  result: [4, GuidanceResult],
  error: [5, QueryError],
  frameReceived: [6, FrameReceived],
  sequence: [15, "uint64"],
});

export type ServerInfo = Message<typeof ServerInfo>;
export type SessionStarted = Message<typeof SessionStarted>;
export type GuidanceResult = Message<typeof GuidanceResult>;
export type QueryError = Message<typeof QueryError>;
export type GuideResponse = Message<typeof GuideResponse>;
