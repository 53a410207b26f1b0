/**
 * Kafka's primitive types on the wire, as far as our own requests need them. Pure.
 * "Compact" strings and arrays and tagged fields belong to the flexible versions (KIP-482), the others to older ones.
 */

export type Writer = {
  int8(value: number): Writer
  int16(value: number): Writer
  int32(value: number): Writer
  uint32(value: number): Writer
  int64(value: number | bigint): Writer
  /** 32-bit number, unsigned varint. */
  uvarint(value: number): Writer
  /** Zigzag varint of a safe integer. */
  varint(value: number): Writer
  raw(bytes: Uint8Array): Writer
  ascii(text: string): Writer
  /** A topic id: 16 bytes from its 22 characters of base64url. */
  uuid(text: string): Writer
  string(value: string | null): Writer
  bytes(value: Uint8Array): Writer
  compactString(value: string | null): Writer
  array<T>(items: readonly T[], write: (item: T) => void): Writer
  compactArray<T>(items: readonly T[], write: (item: T) => void): Writer
  /** No tagged fields. */
  tags(): Writer
  done(): Buffer
}

export const newWriter = (sizeHint = 256): Writer => {
  let buffer = Buffer.allocUnsafe(sizeHint)
  let at = 0
  const room = (bytes: number): number => {
    if (at + bytes > buffer.byteLength) {
      const grown = Buffer.allocUnsafe(Math.max(buffer.byteLength * 2, at + bytes))
      buffer.copy(grown, 0, 0, at)
      buffer = grown
    }
    at += bytes
    return at - bytes
  }
  const writer: Writer = {
    int8: (value) => {
      const to = room(1)
      buffer.writeInt8(value, to)
      return writer
    },
    int16: (value) => {
      const to = room(2)
      buffer.writeInt16BE(value, to)
      return writer
    },
    int32: (value) => {
      const to = room(4)
      buffer.writeInt32BE(value, to)
      return writer
    },
    uint32: (value) => {
      const to = room(4)
      buffer.writeUInt32BE(value, to)
      return writer
    },
    int64: (value) => {
      const to = room(8)
      buffer.writeBigInt64BE(BigInt(value), to)
      return writer
    },
    uvarint: (value) => {
      let rest = value >>> 0
      while (rest > 0x7f) {
        const to = room(1)
        buffer[to] = (rest & 0x7f) | 0x80
        rest >>>= 7
      }
      const to = room(1)
      buffer[to] = rest
      return writer
    },
    varint: (value) => {
      // Beyond 32 bits the shifts of numbers are wrong: multiply and divide instead.
      let rest = value >= 0 ? value * 2 : -value * 2 - 1
      while (rest > 0x7f) {
        const to = room(1)
        buffer[to] = (rest % 0x80) | 0x80
        rest = Math.floor(rest / 0x80)
      }
      const to = room(1)
      buffer[to] = rest
      return writer
    },
    raw: (bytes) => {
      const to = room(bytes.byteLength)
      buffer.set(bytes, to)
      return writer
    },
    ascii: (text) => {
      const to = room(text.length)
      buffer.write(text, to, 'latin1')
      return writer
    },
    uuid: (text) => writer.raw(Buffer.from(text, 'base64url')),
    string: (value) => {
      if (value === null) return writer.int16(-1)
      const bytes = Buffer.from(value)
      return writer.int16(bytes.byteLength).raw(bytes)
    },
    bytes: (value) => writer.int32(value.byteLength).raw(value),
    compactString: (value) => {
      if (value === null) return writer.uvarint(0)
      const bytes = Buffer.from(value)
      return writer.uvarint(bytes.byteLength + 1).raw(bytes)
    },
    array: (items, write) => {
      writer.int32(items.length)
      for (const item of items) write(item)
      return writer
    },
    compactArray: (items, write) => {
      writer.uvarint(items.length + 1)
      for (const item of items) write(item)
      return writer
    },
    tags: () => writer.uvarint(0),
    done: () => buffer.subarray(0, at),
  }
  return writer
}

export type Reader = {
  left(): number
  int8(): number
  int16(): number
  int32(): number
  /** Offsets and times; those beyond 2^53 do not occur in a log that anybody could have written. */
  int64(): number
  bigint64(): bigint
  uvarint(): number
  /** Zigzag varint, up to 53 bits. */
  varint(): number
  uuid(): string
  string(): string | null
  compactString(): string | null
  /** A view, no copy; null for a null value. */
  compactBytes(): Buffer | null
  take(bytes: number): Buffer
  array<T>(read: () => T): T[]
  compactArray<T>(read: () => T): T[]
  /** Reads tagged fields; known ones by their tag, others are passed over. */
  tags(known?: Record<number, () => void>): void
}

/** Throws RangeError when the bytes end too early. */
export const newReader = (buffer: Buffer, start = 0): Reader => {
  let at = start
  const step = (bytes: number): number => {
    at += bytes
    return at - bytes
  }
  const reader: Reader = {
    left: () => buffer.byteLength - at,
    int8: () => buffer.readInt8(step(1)),
    int16: () => buffer.readInt16BE(step(2)),
    int32: () => buffer.readInt32BE(step(4)),
    int64: () => {
      const from = step(8)
      return buffer.readInt32BE(from) * 2 ** 32 + buffer.readUInt32BE(from + 4)
    },
    bigint64: () => buffer.readBigInt64BE(step(8)),
    uvarint: () => {
      let value = 0
      for (let shift = 0; shift < 35; shift += 7) {
        const byte = buffer.readUInt8(step(1))
        value |= (byte & 0x7f) << shift
        if (byte < 0x80) return value >>> 0
      }
      throw new RangeError('a varint without an end')
    },
    varint: () => {
      let value = 0
      for (let scale = 1; scale < 2 ** 63; scale *= 0x80) {
        const byte = buffer.readUInt8(step(1))
        value += (byte & 0x7f) * scale
        if (byte < 0x80) return value % 2 === 0 ? value / 2 : -(value + 1) / 2
      }
      throw new RangeError('a varint without an end')
    },
    uuid: () => reader.take(16).toString('base64url'),
    string: () => {
      const length = reader.int16()
      return length < 0 ? null : reader.take(length).toString()
    },
    compactString: () => {
      const length = reader.uvarint()
      return length === 0 ? null : reader.take(length - 1).toString()
    },
    compactBytes: () => {
      const length = reader.uvarint()
      return length === 0 ? null : reader.take(length - 1)
    },
    take: (bytes) => {
      if (bytes < 0 || at + bytes > buffer.byteLength) throw new RangeError(`${bytes} bytes at ${at} are not there`)
      const from = step(bytes)
      return buffer.subarray(from, at)
    },
    array: (read) => Array.from({ length: Math.max(0, reader.int32()) }, () => read()),
    compactArray: (read) => Array.from({ length: Math.max(0, reader.uvarint() - 1) }, () => read()),
    tags: (known = {}) => {
      for (let n = reader.uvarint(); n > 0; n--) {
        const tag = reader.uvarint()
        const end = reader.uvarint() + at
        known[tag]?.()
        at = end
      }
    },
  }
  return reader
}
