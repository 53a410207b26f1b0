/** Cutting bodies into events: the same events as JSON.parse finds, whatever blanks, escapes, unicode and chunk borders. */
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { newBudget, readBody } from '../../ingest/body.ts'
import { openBuffers } from '../../ingest/buffers.ts'
import { frame } from '../../ingest/frame.ts'
import { depthOf, type Framed, type FrameLimits, frameLines } from '../../ingest/lines.ts'
import { cutChunks, recordIdOf, recordsByPartition, recordsOfChunks } from '../../ingest/records.ts'

const LIMITS: FrameLimits = { lineBytes: 1 << 20, depth: 64, eventsPerRequest: 100_000 }
// So small that bodies outgrow them.
const buffers = openBuffers(1e6, 4)
const KEY = { text: 'k', unique: false }
const body = (text: string): Buffer => Buffer.from(`${text}\n`)
const linesOf = (framed: Framed): string[] => {
  let from = 0
  return [...framed.ends].map((end) => {
    const line = framed.bytes.toString('utf8', from, end)
    from = end
    expect(line.endsWith('\n')).toBe(true)
    expect(line.slice(0, -1)).not.toContain('\n')
    return line.slice(0, -1)
  })
}

const text = fc.string({
  unit: fc.oneof(
    fc.constantFrom('"', '\\', '{', '}', '[', ']', ',', ':', '\n', '\r', ' ', '\u2028', 'é', '😀', '\0'),
    fc.string({ minLength: 1, maxLength: 1 }),
  ),
})
const value = fc.letrec((tie) => ({
  any: fc.oneof(
    { depthSize: 'small' },
    text,
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.integer(),
    fc.boolean(),
    fc.constant(null),
    tie('list'),
    tie('object'),
  ),
  list: fc.array(tie('any'), { maxLength: 4 }),
  object: fc.dictionary(text, tie('any'), { maxKeys: 4 }),
}))
const blank = fc.stringMatching(/^[ \t\r\n]{0,3}$/)
const inLine = fc.stringMatching(/^[ \t\r]{0,2}$/)

/** JSON text of a value with blanks between tokens; strings escaped in different ways. */
const written = (v: unknown, blanks: () => string, escaped: () => boolean): string => {
  const join = (parts: string[], open: string, close: string): string =>
    `${open}${blanks()}${parts.join(`${blanks()},${blanks()}`)}${blanks()}${close}`
  if (typeof v === 'string') {
    const plain = JSON.stringify(v)
    return escaped()
      ? plain.replace(/[^\x20-\x7e]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
      : plain
  }
  if (Array.isArray(v))
    return join(
      v.map((x) => written(x, blanks, escaped)),
      '[',
      ']',
    )
  if (typeof v === 'object' && v !== null)
    return join(
      Object.entries(v).map(
        ([k, x]) => `${written(k, blanks, escaped)}${blanks()}:${blanks()}${written(x, blanks, escaped)}`,
      ),
      '{',
      '}',
    )
  return JSON.stringify(v)
}

const cycle = <T>(list: T[]): (() => T) => {
  let i = 0
  return () => list[i++ % list.length]!
}

describe('agreement with JSON.parse', () => {
  test('arrays', () => {
    fc.assert(
      fc.property(
        fc.array(value.any, { minLength: 1, maxLength: 8 }),
        fc.array(blank, { minLength: 1, maxLength: 9 }),
        fc.array(fc.boolean(), { minLength: 1, maxLength: 5 }),
        (values, blanks, escapes) => {
          const json = `${blanks[0]}${written(values, cycle(blanks), cycle(escapes))}${blanks.at(-1)}`
          const parsed = JSON.parse(json) as unknown[]
          const framed = frame(body(json), false, LIMITS)
          expect(framed.rejects).toEqual([])
          expect(linesOf(framed).map((line) => JSON.parse(line) as unknown)).toEqual(parsed)
        },
      ),
      { numRuns: 250 },
    )
  })

  test('one object, pretty or not', () => {
    fc.assert(
      fc.property(value.object, fc.array(blank, { minLength: 1, maxLength: 9 }), (object, blanks) => {
        const json = written(object, cycle(blanks), () => false)
        const framed = frame(body(json), false, LIMITS)
        expect(linesOf(framed).map((line) => JSON.parse(line) as unknown)).toEqual([JSON.parse(json)])
      }),
      { numRuns: 250 },
    )
  })

  test('lines', () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(value.any, fc.constant(undefined)), { minLength: 1, maxLength: 8 }),
        fc.array(inLine, { minLength: 1, maxLength: 9 }),
        fc.boolean(),
        (values, blanks, ended) => {
          const next = cycle(blanks)
          const raw = values.map((v) =>
            v === undefined ? next() : `${next()}${written(v, next, () => false)}${next()}`,
          )
          const expected = raw.filter((line) => line.trim() !== '').map((line) => line.trim())
          const bytes = Buffer.from(raw.join('\n') + (ended ? '\n' : ' \n'))
          if (expected.length === 0) return
          const framed = frame(bytes, true, LIMITS)
          expect(linesOf(framed)).toEqual(expected)
          expect(framed.total).toBe(expected.length)
        },
      ),
      { numRuns: 250 },
    )
  })

  test('a body that JSON.parse takes as an array of objects is never cut otherwise; one it refuses is never cut into sound events that are not in it', () => {
    fc.assert(
      fc.property(
        fc.array(value.object, { minLength: 1, maxLength: 4 }),
        fc.nat(),
        fc.constantFrom('', '"', '\\', ',', ']', '}', '[', '{', '\n', 'x'),
        (objects, at, inserted) => {
          const json = JSON.stringify(objects)
          const place = at % json.length
          const torn = json.slice(0, place) + inserted + json.slice(place + (inserted === '' ? 1 : 0))
          // (a half of a surrogate pair becomes U+FFFD on its way to bytes)
          const broken = Buffer.from(torn).toString()
          let parsed: unknown[] | null = null
          try {
            const found: unknown = JSON.parse(broken)
            if (Array.isArray(found)) parsed = found
          } catch {
            parsed = null
          }
          let framed: Framed
          try {
            framed = frame(body(broken), false, LIMITS)
          } catch (error) {
            expect(parsed === null || parsed.length === 0, String(error)).toBe(true)
            return
          }
          // Every event has a fate: lines and rejects together.
          expect(framed.ends.length + framed.rejects.length).toBe(framed.total)
          if (parsed !== null && broken.trimStart().startsWith('[')) {
            expect(linesOf(framed).map((line) => JSON.parse(line) as unknown)).toEqual(parsed)
          }
        },
      ),
      { numRuns: 400 },
    )
  })

  test('however the body is cut into chunks, and gzipped, and whatever length it was said to have', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(value.object, { minLength: 1, maxLength: 5 }),
        fc.array(fc.nat(40), { minLength: 1, maxLength: 10 }),
        fc.boolean(),
        fc.boolean(),
        fc.oneof(fc.nat(2_000), fc.constantFrom(2 ** 20, 2 ** 40)),
        async (objects, sizes, zipped, isArray, declared) => {
          const plain = Buffer.from(
            isArray ? JSON.stringify(objects, null, 1) : objects.map((o) => JSON.stringify(o)).join('\n'),
          )
          const sent = zipped ? gzipSync(plain, { level: 1 }) : plain
          const next = cycle(sizes)
          const chunks = async function* () {
            for (let from = 0; from < sent.byteLength; ) {
              const size = next()
              yield sent.subarray(from, from + size)
              from += Math.max(size, 1) === size ? size : 0
              if (size === 0) {
                yield sent.subarray(from, from + 1)
                from += 1
              }
            }
          }
          let held = 0
          const count = (n: number): void => {
            held += n
          }
          const limits = { bodyBytes: 1e6, inflateRatio: 200 }
          const bytes = await readBody(chunks(), false, declared, limits, newBudget(1e6), count, buffers)
          // What is not said to be gzip is held until its end, and then what comes out of it.
          expect(held).toBe(plain.byteLength + (sent === plain ? 0 : sent.byteLength))
          expect(bytes.toString('utf8').trimEnd()).toBe(plain.toString('utf8').trimEnd())
          expect(linesOf(frame(bytes, false, LIMITS)).map((line) => JSON.parse(line) as unknown)).toEqual(
            objects.map((o) => JSON.parse(JSON.stringify(o)) as unknown),
          )
        },
      ),
      { numRuns: 200 },
    )
  })
})

test('a source that is given up is ended', async () => {
  for (const gzip of [false, true]) {
    let ended = false
    const endless = async function* () {
      try {
        for (;;) yield gzip ? gzipSync('x'.repeat(100)) : Buffer.alloc(100, 'x')
      } finally {
        ended = true
      }
    }
    const limits = { bodyBytes: 1_000, inflateRatio: 200 }
    const read = readBody(endless(), gzip, 0, limits, newBudget(1e6), () => undefined, buffers)
    await expect(read).rejects.toMatchObject({ code: 'WEIR_INGEST_TOO_LARGE' })
    await expect.poll(() => ended).toBe(true)
  }
})

test('a body that fills its buffer to the last byte still gets its newline', async () => {
  const limits = { bodyBytes: 1e6, inflateRatio: 200 }
  for (let size = 2; size <= 70; size++)
    for (const declared of [0, size - 1, size, size + 1]) {
      const sent = Buffer.alloc(size, 'x')
      const chunks = async function* () {
        yield sent.subarray(0, 1)
        yield sent.subarray(1)
      }
      const bytes = await readBody(chunks(), false, declared, limits, newBudget(1e6), () => undefined, buffers)
      expect(bytes.toString()).toBe(`${'x'.repeat(size)}\n`)
    }
})

describe('what form a body has', () => {
  const shape = (json: string, isNdjson = false): string[] => linesOf(frame(body(json), isNdjson, LIMITS))
  test('a broken array line among NDJSON is one event', () => {
    expect(shape('["not","an","object"]\n{"a":1}\n')).toEqual(['["not","an","object"]', '{"a":1}'])
  })
  test('with the NDJSON type an array is one event, and a pretty object as many as it has lines', () => {
    expect(shape('[{"a":1},{"b":2}]', true)).toEqual(['[{"a":1},{"b":2}]'])
    expect(shape('{\n"a":1\n}', true)).toEqual(['{', '"a":1', '}'])
  })
  test('a truncated first line does not swallow the others', () => {
    expect(shape('{"a":1,\n{"b":2}\n{"c":3}')).toEqual(['{"a":1,', '{"b":2}', '{"c":3}'])
    expect(shape('{"a":"x\n{"b":2}')).toEqual(['{"a":"x', '{"b":2}'])
  })
  test('a pretty object with something behind it is lines', () => {
    expect(shape('{\n"a":1\n}\n{"b":2}').length).toBe(4)
  })
  test('more lines than the list of ends has room for at first; an earlier body keeps its own ends', () => {
    const of = (texts: string[]): Framed => frameLines(body(texts.join('\n')), LIMITS)
    const few = of(['{"name":0}', '{"name":1}'])
    const all = of(Array.from({ length: 50_000 }, (_, i) => `{"n":${i}}`))
    expect(linesOf(few)).toEqual(['{"name":0}', '{"name":1}'])
    expect(linesOf(all).every((line, i) => line === `{"n":${i}}`)).toBe(true)
    expect(all.total).toBe(50_000)
  })

  test('only the fast way and the careful way of the same lines agree', () => {
    const events = Array.from({ length: 50 }, (_, i) => `{"i":${i},"x":${i % 3 ? '{"y":[1,2]}' : '"[{"'}}`)
    const fast = frameLines(body(events.join('\n')), LIMITS)
    const careful = frameLines(body(` ${events.join('\n')}`), LIMITS)
    expect(linesOf(fast)).toEqual(events)
    expect(linesOf(careful)).toEqual(events)
    expect(fast.index).toBe(null)
  })
})

describe('depth', () => {
  test('depthOf is the depth of JSON.parse', () => {
    const deep = (v: unknown): number =>
      typeof v === 'object' && v !== null ? 1 + Math.max(0, ...Object.values(v).map(deep)) : 0
    fc.assert(
      fc.property(value.any, (v) => {
        const bytes = Buffer.from(JSON.stringify(v))
        expect(depthOf(bytes, 0, bytes.byteLength)).toBe(deep(v))
      }),
      { numRuns: 250 },
    )
  })

  test('each line is judged by its own depth, the fast way too', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(6), { minLength: 1, maxLength: 12 }), fc.boolean(), (depths, objects) => {
        const [open, close] = objects ? ['{"a":', '}'] : ['[', ']']
        const events = depths.map((d) => `{"x":${open.repeat(d)}1${close.repeat(d)}}`)
        const framed = frameLines(body(events.join('\n')), { ...LIMITS, depth: 4 })
        const bad = depths.flatMap((d, i) => (d + 1 > 4 ? [i] : []))
        expect(framed.rejects.map((r) => r.index)).toEqual(bad)
        expect(linesOf(framed)).toEqual(events.filter((_, i) => !bad.includes(i)))
        expect([...(framed.index ?? framed.ends.map((_, i) => i))]).toEqual(
          depths.flatMap((_, i) => (bad.includes(i) ? [] : [i])),
        )
      }),
      { numRuns: 250 },
    )
  })
})

describe('records', () => {
  test('under one key of a client, other bytes are another record; a key that no other request has is enough alone', () => {
    const id = (text: string, unique: boolean, bytes: string) =>
      recordIdOf('d', 0, { text, unique }, 0, Buffer.from(bytes))
    expect(id('k', false, 'a')).toBe(id('k', false, 'a'))
    expect(id('k', false, 'a')).not.toBe(id('k', false, 'b'))
    expect(id('f1', true, 'a')).toBe(id('f1', true, 'b'))
    expect(id('f1', true, 'a')).not.toBe(id('f2', true, 'a'))
  })

  const limits = { recordBytes: 60, recordEvents: 4 }
  test('chunks join to the body; dead lines and partitions take out exactly their lines', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ size: fc.nat(40), p: fc.integer({ min: -1, max: 2 }) }), { minLength: 1, maxLength: 30 }),
        (made) => {
          const lines = made.map(({ size }, i) => `{"i":${i},"s":"${'s'.repeat(size)}"}\n`)
          const framed = frameLines(Buffer.from(lines.join('')), LIMITS)
          const chunks = cutChunks(framed.bytes, framed.ends, limits)
          expect(Buffer.concat(chunks.map((c) => c.bytes))).toEqual(framed.bytes)
          for (const chunk of chunks) {
            expect(chunk.events).toBeLessThanOrEqual(4)
            if (chunk.events > 1) {
              const last = lines[chunk.first + chunk.events - 1]!.length
              expect(chunk.bytes.byteLength - last).toBeLessThan(60)
            }
          }
          const dead = new Map<number, number[]>()
          chunks.forEach((chunk, number) => {
            const own = Array.from({ length: chunk.events }, (_, n) => n).filter((n) => made[chunk.first + n]!.p < 0)
            if (own.length > 0) dead.set(number, own)
          })
          const alive = lines.filter((_, i) => made[i]!.p >= 0).join('')
          const records = recordsOfChunks('d', 0, KEY, chunks, dead)
          expect(Buffer.concat(records.map((r) => r.bytes)).toString()).toBe(alive)
          for (const r of records) expect(r.events).toBe(Buffer.from(r.bytes).toString().split('\n').length - 1)
          const parts = recordsByPartition(
            'd',
            KEY,
            framed.bytes,
            framed.ends,
            Int32Array.from(made, (m) => m.p),
            limits,
          )
          for (const p of [0, 1, 2]) {
            const own = lines.filter((_, i) => made[i]!.p === p).join('')
            expect(Buffer.concat((parts.get(p) ?? []).map((r) => r.bytes)).toString()).toBe(own)
          }
          const ids = [...parts.values()].flat().map((r) => r.recordId)
          expect(new Set(ids).size).toBe(ids.length)
        },
      ),
      { numRuns: 250 },
    )
  })
})
