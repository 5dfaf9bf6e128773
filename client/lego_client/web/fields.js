// Reads protobuf messages, as far as this page needs: fields by number, as numbers (varints) or bytes.

/**
 * Returns the fields of a message: by number, the last value of each.
 * @param {Uint8Array} bytes
 * @returns {Map<number, number | Uint8Array>}
 */
export function readFields(bytes) {
  const fields = new Map();
  let at = 0;
  const varint = () => {
    let value = 0, scale = 1, byte;
    do {
      if (at >= bytes.length) throw new RangeError("the message is cut short");
      byte = bytes[at++];
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte & 128);
    return value;
  };
  while (at < bytes.length) {
    const key = varint();
    const number = Math.floor(key / 8);
    const kind = key % 8;
    if (kind === 0) {
      fields.set(number, varint());
      continue;
    }
    const length = { 1: () => 8, 2: varint, 5: () => 4 }[kind]?.();
    if (length === undefined || at + length > bytes.length) throw new RangeError("the bytes are no message");
    fields.set(number, bytes.subarray(at, at + length));
    at += length;
  }
  return fields;
}

/** Returns the text of a field; empty if it is not there. */
export function textOf(fields, number) {
  return new TextDecoder().decode(fields.get(number) ?? new Uint8Array());
}
