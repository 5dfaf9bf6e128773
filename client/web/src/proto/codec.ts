/**
 * Protobuf messages as plain objects, after a table of their fields.
 *
 * The usual generated code brings descriptors and reflection along, which would be half of the page; this is what the page
 * needs of it. Reading and writing of the wire format itself is `@bufbuild/protobuf`'s.
 */

import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";

interface Scalars {
  uint64: bigint;
  uint32: number;
  enum: number;
  float: number;
  bool: boolean;
  string: string;
  bytes: Uint8Array;
}
type Scalar = keyof Scalars;

/** Number and type of a field, and whether it may be unset or come several times; a message may always be unset. */
export type Field = readonly [number, Scalar | Schema, ("optional" | "repeated")?];
export interface Schema {
  readonly [name: string]: Field;
}

type Value<F> = F extends readonly [number, infer T extends Scalar]
  ? Scalars[T]
  : F extends readonly [number, infer T extends Scalar, "repeated"]
    ? Scalars[T][]
    : F extends readonly [number, infer T extends Scalar, "optional"]
      ? Scalars[T] | undefined
      : F extends readonly [number, infer S extends Schema, "repeated"]
        ? Message<S>[]
        : F extends readonly [number, infer S extends Schema]
          ? Message<S> | undefined
          : never;

/** A message of a schema: every field is there, as its default or as undefined where it may be unset. */
export type Message<S extends Schema> = { [Name in keyof S]: Value<S[Name]> };
/** The same to be sent: what is left out is not set. */
export type Draft<S extends Schema> = {
  [Name in keyof S]?:
    | (S[Name][1] extends Schema
        ? S[Name][2] extends "repeated"
          ? readonly Draft<S[Name][1]>[]
          : Draft<S[Name][1]>
        : Value<S[Name]>)
    | undefined;
};

const EMPTY = new Uint8Array();
const DEFAULTS: Scalars = { uint64: 0n, uint32: 0, enum: 0, float: 0, bool: false, string: "", bytes: EMPTY };
const WIRE_TYPES: Record<Scalar, WireType> = {
  uint64: WireType.Varint,
  uint32: WireType.Varint,
  enum: WireType.Varint,
  bool: WireType.Varint,
  float: WireType.Bit32,
  string: WireType.LengthDelimited,
  bytes: WireType.LengthDelimited,
};

/** Returns the message in some bytes; fields that the schema does not know are passed over. Throws on damaged bytes. */
export function decode<S extends Schema>(schema: S, bytes: Uint8Array): Message<S> {
  const found: Record<string, unknown> = {};
  for (const [name, [, type, label]] of Object.entries(schema)) {
    if (label === "repeated") found[name] = [];
    else if (typeof type === "string" && label === undefined) found[name] = DEFAULTS[type];
  }
  const names = new Map(Object.entries(schema).map(([name, [number]]) => [number, name]));
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag();
    const name = names.get(number);
    const [, type, label] = (name !== undefined && schema[name]) || [];
    if (name === undefined || type === undefined || wireType !== wireTypeOf(type)) reader.skip(wireType, number);
    else if (label === "repeated") (found[name] as unknown[]).push(read(reader, type));
    else found[name] = read(reader, type);
  }
  return found as Message<S>;
}

/** Returns a message's bytes. */
export function encode<S extends Schema>(schema: S, message: Draft<S>): Uint8Array<ArrayBuffer> {
  const writer = new BinaryWriter();
  for (const [name, [number, type, label]] of Object.entries(schema)) {
    const value: unknown = message[name as keyof S];
    const usual = typeof type === "string" && label === undefined && (value === DEFAULTS[type] || isEmpty(value));
    if (value === undefined || usual) continue;
    for (const each of label === "repeated" ? (value as unknown[]) : [value]) {
      write(writer.tag(number, wireTypeOf(type)), type, each);
    }
  }
  return writer.finish();
}

function isEmpty(value: unknown): boolean {
  return value instanceof Uint8Array && value.length === 0;
}

function wireTypeOf(type: Scalar | Schema): WireType {
  return typeof type === "string" ? WIRE_TYPES[type] : WireType.LengthDelimited;
}

function read(reader: BinaryReader, type: Scalar | Schema): unknown {
  switch (type) {
    case "uint64":
      return BigInt(reader.uint64());
    case "enum":
      return reader.int32();
    case "uint32":
    case "float":
    case "bool":
    case "string":
    case "bytes":
      return reader[type]();
    default:
      return decode(type, reader.bytes());
  }
}

function write(writer: BinaryWriter, type: Scalar | Schema, value: unknown): void {
  switch (type) {
    case "enum":
      writer.int32(value as number);
      break;
    case "uint64":
      writer.uint64(value as bigint);
      break;
    case "uint32":
    case "float":
      writer[type](value as number);
      break;
    case "bool":
      writer.bool(value as boolean);
      break;
    case "string":
      writer.string(value as string);
      break;
    case "bytes":
      writer.bytes(value as Uint8Array);
      break;
    default:
      writer.bytes(encode(type, value as Draft<Schema>));
  }
}
