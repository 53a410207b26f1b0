/** What does not fit together is refused, never counted: each damage gives a retryable error and no number. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { EMPTY_DIGEST } from '../../model/digest.ts'
import { WeirError } from '../../model/errors.ts'
import type { EventLog } from '../../model/ports/event-log.ts'
import type { Block, Epoch, Header, SpeedStore, ViewHeader } from '../../model/ports/speed-store.ts'
import type { Query } from '../../model/query/query.ts'
import { decodeToken, encodeToken } from '../../model/token.ts'
import type { ServingContext } from '../../serving-layer/context.ts'
import { fill, type Lab, openLab, refusal, refused } from './support.ts'

const QUERY: Query = { view: 'takings', dimensions: [], grain: 'all', measures: ['sold'] }

let lab: Lab
const open = async (): Promise<void> => {
  lab = await openLab({ seed: 3 })
}
const close = (): Promise<void> => lab.close()

/** A serving layer over a speed store that lies. */
const over = (change: Partial<SpeedStore>, more: Partial<ServingContext> = {}) =>
  lab.openServing({ speed: { ...lab.speed, ...change }, replanMs: 30, ...more })

const withHeader = (change: (header: Header) => Header | null) =>
  over({
    header: async (key) => {
      const header = await lab.speed.header(key)
      return header === null || key.partition !== 0 ? header : change(structuredClone(header))
    },
  })

const inView = async (change: (view: ViewHeader, header: Header) => void) => {
  const { version } = await lab.view('takings')
  return withHeader((header) => {
    change(header.views[version]!, header)
    return header
  })
}

describe('joining', () => {
  beforeAll(async () => {
    await open()
    await fill(lab)
  })
  afterAll(close)

  it('is right when nothing is wrong', async () => {
    expect((await (await inView(() => undefined)).query(QUERY)).rows).toEqual([{ sold: 80 }])
  })
  it('needs the epoch that begins at the cut', async () => {
    const serving = await inView((view) => {
      view.epochs = view.epochs.slice(-1).map((e) => ({ ...e, from: { ...e.from, offset: e.from.offset + 1 } }))
    })
    await refused(serving.query(QUERY), 'NO_EPOCH')
  })
  it('needs the epoch of the very append, not only of the offset', async () => {
    const serving = await inView((view) => {
      for (const e of view.epochs) e.from = { ...e.from, fingerprint: 'f'.repeat(16) }
    })
    await refused(serving.query(QUERY), 'NO_EPOCH')
  })
  it('needs epochs without a gap', async () => {
    const serving = await inView((view, header) => {
      const last = view.epochs.at(-1)!
      const middle = { ...header.position, offset: last.from.offset + 1, fingerprint: 'a'.repeat(16) }
      const later = { ...middle, offset: middle.offset + 1 }
      const empty = (from: Epoch['from'], to: Epoch['to']): Epoch => ({ from, to, blocks: 0, digest: EMPTY_DIGEST })
      view.epochs = [...view.epochs.slice(0, -1), { ...last, to: middle }, empty(later, header.position)]
    })
    await refused(serving.query(QUERY), 'NO_EPOCH')
  })
  it('needs epochs up to the header position', async () => {
    const serving = await inView((view) => {
      const last = view.epochs.at(-1)!
      last.to = { ...last.to, offset: last.to.offset - 1 }
    })
    await refused(serving.query(QUERY), 'NO_EPOCH')
  })
  it('needs the version in the header', async () => {
    const { version } = await lab.view('takings')
    const serving = withHeader((header) => {
      delete header.views[version]
      return header
    })
    await refused(serving.query(QUERY), 'NOT_FED')
  })
  it('needs one log id', async () => {
    const serving = withHeader((header) => ({ ...header, position: { ...header.position, logId: 'another' } }))
    await refused(serving.query(QUERY), 'OTHER_LOG')
  })
  it('needs a state that is not ahead of the log', async () => {
    const serving = withHeader((header) => ({
      ...header,
      position: { ...header.position, offset: header.position.offset + 5 },
    }))
    await refused(serving.query(QUERY), 'AHEAD')
  })
  it('needs the record before the upper to be the log’s', async () => {
    const serving = await inView((view, header) => {
      header.position = { ...header.position, fingerprint: 'b'.repeat(16) }
      view.epochs.at(-1)!.to = header.position
    })
    await refused(serving.query(QUERY), 'OTHER_LOG')
  })
  it('takes a lost state as "nothing beyond the cut" only if nothing beyond was shown', async () => {
    let lost = true
    const serving = withHeader((header) => (lost ? null : header))
    const fresh = await serving.query(QUERY)
    expect(fresh.rows).toEqual([{ sold: 50 }])
    expect(fresh.asOf.upper).toEqual({ ...fresh.asOf.cut, '1': fresh.asOf.upper['1'] })
    expect(fresh.timing!.lagRecords).toBeGreaterThan(0)
    lost = false
    expect((await serving.query(QUERY)).rows).toEqual([{ sold: 80 }])
    lost = true
    await refused(serving.query(QUERY), 'BEHIND')
  })
  it('answers from an older upper again when the log itself lost the records', async () => {
    const position = (await lab.speed.header({ dataset: 'sales', partition: 0 }))!.position
    let truncated = false
    const log: EventLog = {
      ...lab.log,
      range: async (d, p) => {
        const range = await lab.log.range(d, p)
        return truncated && p === 0 ? { ...range, endOffset: position.offset - 1 } : range
      },
      positionAt: async (d, p, offset) =>
        truncated && p === 0 && offset >= position.offset ? null : lab.log.positionAt(d, p, offset),
    }
    const serving = over(
      { header: async (key) => (truncated && key.partition === 0 ? null : lab.speed.header(key)) },
      { log },
    )
    expect((await serving.query(QUERY)).rows).toEqual([{ sold: 80 }])
    truncated = true
    expect((await serving.query(QUERY)).rows).toEqual([{ sold: 50 }])
  })
  it('refuses a header from before the cut', async () => {
    const early = await lab.openServing().answer(QUERY)
    await lab.extend()
    const plan = early.plan.partitions[0]!
    const serving = await inView((view, header) => {
      header.position = plan.cut
      view.epochs = [{ from: plan.cut, to: plan.cut, blocks: 0, digest: EMPTY_DIGEST }]
    })
    await refused(serving.query(QUERY), 'NO_EPOCH')
  })
})

describe('digests', () => {
  beforeAll(async () => {
    await open()
    await fill(lab)
  })
  afterAll(close)
  const withBlocks = (change: (blocks: Block[]) => Block[]) =>
    over({
      blocks: async (key, version, epoch, ids) => change(await lab.speed.blocks(key, version, epoch, ids)),
    })

  it('refuse a missing block', async () => {
    await refused(withBlocks((blocks) => blocks.slice(1)).query(QUERY), 'DIGEST')
  })
  it('refuse a changed block under its old hash', async () => {
    const serving = withBlocks((blocks) =>
      blocks.map((b) => ({
        ...b,
        bytes: Buffer.from(
          Buffer.from(b.bytes)
            .toString()
            .replace(/"c4":\d+/, '"c4":999'),
        ),
      })),
    )
    await refused(serving.query(QUERY), 'DIGEST')
  })
  it('refuse a changed block under a hash of its own', async () => {
    const { blockHash } = await import('../../model/digest.ts')
    const serving = withBlocks((blocks) =>
      blocks.map((b) => {
        const bytes = Buffer.from(
          Buffer.from(b.bytes)
            .toString()
            .replace(/"c4":\d+/, '"c4":999'),
        )
        return { id: b.id, bytes, hash: blockHash(b.id, bytes) }
      }),
    )
    await refused(serving.query(QUERY), 'DIGEST')
  })
  it('refuse blocks of another epoch', async () => {
    const { version } = await lab.view('takings')
    const header = (await lab.speed.header({ dataset: 'sales', partition: 0 }))!
    const first = header.views[version]!.epochs[0]!.from
    const serving = over({ blocks: async (key, v) => lab.speed.blocks(key, v, first) })
    if (header.views[version]!.epochs.length > 1) await refused(serving.query(QUERY), 'DIGEST')
  })
  it('heal when the store does', async () => {
    let broken = true
    const serving = withBlocks((blocks) => (broken ? blocks.slice(1) : blocks))
    await refused(serving.query(QUERY), 'DIGEST')
    broken = false
    expect((await serving.query(QUERY)).rows).toEqual([{ sold: 80 }])
  })
  it('plan again while the state moves on, and then answer', async () => {
    let first = true
    const serving = over({
      blocks: async (key, version, epoch, ids) => {
        const blocks = await lab.speed.blocks(key, version, epoch, ids)
        if (first) {
          first = false
          await lab.append(25, 0)
          await lab.speedUp()
          return lab.speed.blocks(key, version, epoch, ids)
        }
        return blocks
      },
    })
    expect((await serving.query(QUERY)).rows).toEqual([{ sold: 105 }])
  })
  it('do not believe a changelog that leaves blocks out', async () => {
    const serving = over({
      changelog: async (key, offset) =>
        (await lab.speed.changelog(key, offset)).map((e) => ({
          ...e,
          views: Object.fromEntries(Object.entries(e.views).map(([v, x]) => [v, { ...x, blocks: [] }])),
        })),
    })
    await serving.query(QUERY)
    await lab.append(25, 0)
    await lab.speedUp()
    expect((await serving.query(QUERY)).rows).toEqual([{ sold: 130 }])
  })
})

describe('the lake', () => {
  beforeEach(open)
  afterEach(close)
  it('refuses a damaged part', async () => {
    await fill(lab)
    const corrupt = () => {
      throw new WeirError({ code: 'WEIR_LAKE_CORRUPT', message: 'flipped bit' })
    }
    const store = { ...lab.ctx.lake.store, localFile: async () => corrupt() }
    await refused(lab.openServing({ lake: { ...lab.ctx.lake, store }, replanMs: 10 }).query(QUERY), 'LAKE')
    await refused(
      lab.openServing({ lake: { ...lab.ctx.lake, store }, replanMs: 10, batchBytes: 0 }).query(QUERY),
      'LAKE',
    )
  })
})

describe('the engine', () => {
  beforeEach(open)
  afterEach(close)
  it('may lose its tables: they are made anew', async () => {
    await fill(lab)
    expect((await lab.serving.query(QUERY)).rows).toEqual([{ sold: 80 }])
    await lab.engine.withSession(async (s) => {
      const tables = await s.rows<{ name: string }>(
        `SELECT table_name AS name FROM duckdb_tables() WHERE table_name LIKE 'serving_%'`,
      )
      expect(tables.length).toBeGreaterThan(0)
      for (const { name } of tables) await s.run(`DROP TABLE ${name}`)
    })
    expect((await lab.serving.query({ ...QUERY, measures: ['sold', 'total'] })).rows[0]!.sold).toBe(80)
  })
})

describe('tokens', () => {
  beforeAll(async () => {
    await open()
    await fill(lab)
  })
  afterAll(close)
  it('wait until the answer holds what was written', async () => {
    const token = await lab.append(5, 0)
    await refused(lab.serving.query({ ...QUERY, atLeast: token }), 'NOT_YET')
    await refused(lab.serving.query({ ...QUERY, atLeast: token, waitMs: 20 }), 'NOT_YET')
    const waiting = lab.serving.query({ ...QUERY, atLeast: token, waitMs: 20_000 })
    await lab.speedUp()
    expect((await waiting).rows).toEqual([{ sold: 85 }])
  })
  it('of another log, or another history, are gone', async () => {
    const token = decodeToken(await lab.append(5, 0))
    await lab.speedUp()
    const gone = async (change: Partial<typeof token>): Promise<void> => {
      const error = await refusal(lab.serving.query({ ...QUERY, atLeast: encodeToken({ ...token, ...change }) }))
      expect(error.code).toBe('WEIR_SERVING_TOKEN_GONE')
    }
    const at = token.positions['0']!
    await gone({ logId: 'another' })
    await gone({ positions: { '0': { ...at, fingerprint: 'c'.repeat(16) } } })
    await gone({ positions: { '0': { ...at, offset: at.offset + 100 } } })
    await gone({ positions: { '9': at } })
    const other = await refusal(lab.serving.query({ ...QUERY, atLeast: encodeToken({ ...token, dataset: 'x' }) }))
    expect(other.code).toBe('WEIR_MODEL_QUERY_VALUE')
    expect((await refusal(lab.serving.query({ ...QUERY, atLeast: 'nonsense' }))).code).toBe('WEIR_MODEL_BAD_TOKEN')
  })
  it('are not met by a speed state of a replaced history (H6)', async () => {
    const token = await lab.append(5, 0)
    await lab.append(5, 0)
    await lab.speedUp()
    // The state is of other records than the log's, though far enough.
    const header = (await lab.speed.header({ dataset: 'sales', partition: 0 }))!
    const log: EventLog = {
      ...lab.log,
      positionAt: async (d, p, offset) => {
        const own = await lab.log.positionAt(d, p, offset)
        return own !== null && p === 0 && offset === header.position.offset
          ? { ...own, fingerprint: 'd'.repeat(16) }
          : own
      },
    }
    await refused(lab.openServing({ log, replanMs: 20 }).query({ ...QUERY, atLeast: token }), 'OTHER_LOG')
  })
})
