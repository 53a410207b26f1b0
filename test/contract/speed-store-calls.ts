/**
 * Random calls of a speed store, seeded: mostly ones that go on from what is stored, many that miss it by a little (stale,
 * duplicate, gap, crossing a cut, another log, unknown versions), some that make no sense.
 * Invariant: blocks, counts and digests are truthful, as the worker's are; everything else may be wrong.
 */
import { blockHash, digestOf, EMPTY_DIGEST } from '../../model/digest.ts'
import type { Apply, Block, Epoch, EpochWrite, Header, SpeedStore, StoreKey } from '../../model/ports/speed-store.ts'
import { genesis, type Position } from '../../model/position.ts'
import { openEpoch } from '../../speed-layer/store-rules.ts'
import { below, type Rng } from '../support/orders.ts'

export type Call = { name: string; run(store: SpeedStore): Promise<unknown> }

export const VERSIONS = ['1111111111111111', '2222222222222222', '3333333333333333']
export const KEYS: StoreKey[] = [
  { dataset: 'orders', partition: 0 },
  { dataset: 'orders', partition: 1 },
]

const at = (offset: number, history = 'a', logId = 'log-a'): Position =>
  offset <= 0
    ? genesis(logId)
    : { logId, offset, fingerprint: `${history}${offset}`.padEnd(16, '0'), effectiveMs: offset * 10 }

const one = <T>(random: Rng, list: readonly T[]): T => list[below(random, list.length)]!
const chance = (random: Rng, p: number): boolean => random() < p
const emptyEpoch = (from: Position, to = from): Epoch => ({ from, to, blocks: 0, digest: EMPTY_DIGEST })

const block = (random: Rng): Block => {
  const id = `m${below(random, 6)}.${below(random, 2)}`
  const bytes = Buffer.from(`{"c0":${below(random, 1e9)}}\n`.repeat(1 + below(random, chance(random, 0.2) ? 60 : 3)))
  return { id, bytes, hash: blockHash(id, bytes) }
}
const someBlocks = (random: Rng, most: number): Block[] => {
  const found = new Map<string, Block>()
  for (let i = below(random, most + 1); i > 0; i--) {
    const b = block(random)
    found.set(b.id, b)
  }
  return [...found.values()]
}

/** The write of new blocks over those that the epoch has. */
const writeOf = (epoch: Position, old: Block[], blocks: Block[]): EpochWrite => {
  const all = new Map([...old, ...blocks].map((b) => [b.id, b.hash]))
  return { epoch, blocks, blockCount: all.size, digest: digestOf(all.values()) }
}

/** A position near the given one: before, at, after it, or of another history. */
const near = (random: Rng, p: Position): Position => {
  const offset = Math.max(0, p.offset + below(random, 9) - 4)
  if (chance(random, 0.6)) return at(offset, p.fingerprint[0], p.logId)
  return one(random, [at(offset, 'b', p.logId), at(offset, 'a', 'log-b'), p])
}

type World = { random: Rng; key: StoreKey; header: Header | null; truth: SpeedStore }

const goodApply = async ({ random, key, header, truth }: World): Promise<Apply> => {
  const from = header?.position ?? genesis('log-a')
  const to = at(from.offset + 1 + below(random, 4), from.fingerprint[0] ?? 'a', from.logId)
  const views: Apply['views'] = {}
  for (const [version, view] of Object.entries(header?.views ?? {})) {
    const { from: epoch } = openEpoch(view)
    views[version] = writeOf(epoch, await truth.blocks(key, version, epoch), someBlocks(random, 4))
  }
  return { from, to, counted: to.offset * 3, duplicate: 1, dead: 0, watermarkUs: `${to.offset}000000`, views }
}

const missingApply = async (world: World): Promise<Apply> => {
  const { random } = world
  const apply = await goodApply(world)
  const version = one(random, VERSIONS)
  const write = apply.views[version] ?? writeOf(apply.from, [], someBlocks(random, 2))
  const { [version]: _gone, ...others } = apply.views
  return one(random, [
    { ...apply, from: near(random, apply.from) },
    { ...apply, to: near(random, apply.to) },
    { ...apply, from: at(Math.max(0, apply.from.offset - 2)), to: apply.from },
    { ...apply, from: apply.to, to: at(apply.to.offset + 2) },
    { ...apply, to: at(apply.to.offset + 20, apply.to.fingerprint[0], apply.to.logId) },
    { ...apply, views: others },
    { ...apply, views: { ...apply.views, [version]: write } },
    { ...apply, views: { ...apply.views, [version]: { ...write, epoch: near(random, write.epoch) } } },
    { ...apply, views: { ...apply.views, [version]: { ...write, digest: 'no digest' } } },
    {
      ...apply,
      views: { ...apply.views, [version]: { ...write, blocks: [block(random), { ...block(random), id: '' }] } },
    },
  ])
}

const installOf = ({ random, header }: World): [Position, string, { epoch: Epoch; blocks: Block[] }[]] => {
  const position = header?.position ?? genesis('log-a')
  const place = chance(random, 0.75) ? position : near(random, position)
  const starts = [place.offset]
  for (let i = below(random, 3); i > 0; i--) starts.unshift(Math.max(0, starts[0]! - 1 - below(random, 5)))
  const from = chance(random, 0.95) ? [...new Set(starts)] : starts
  const positions = from.map((o) => (o === place.offset ? place : at(o, place.fingerprint[0] ?? 'a', place.logId)))
  const epochs = positions.map((start, i) => {
    const to = positions[i + 1] ?? place
    const blocks = start.offset === to.offset && i + 1 < positions.length ? [] : someBlocks(random, 4)
    return { epoch: { from: start, to, blocks: blocks.length, digest: digestOf(blocks.map((b) => b.hash)) }, blocks }
  })
  if (chance(random, 0.05)) epochs.pop()
  return [place, one(random, VERSIONS), epochs]
}

const rebuildOf = ({ random, header }: World): [Position | null, Header] => {
  const position = at(below(random, 40))
  const versions = VERSIONS.filter(() => chance(random, 0.6))
  const views = Object.fromEntries(versions.map((v) => [v, { epochs: [emptyEpoch(position)], retiring: [] }]))
  const stored = header?.position ?? null
  const expected = chance(random, 0.7) ? stored : one(random, [null, near(random, stored ?? genesis('log-a'))])
  return [expected, { formatVersion: 1, position, counted: 0, duplicate: 0, dead: 0, watermarkUs: null, views }]
}

/** The next call, made for what `truth` has stored. */
export const randomCall = async (random: Rng, truth: SpeedStore, keys = KEYS): Promise<Call & { key: StoreKey }> => {
  const key = one(random, keys)
  const header = await truth.header(key)
  const world: World = { random, key, header, truth }
  const of = (name: string, run: Call['run']) => ({ name, key, run })
  const version = chance(random, 0.05) ? 'ffffffffffffffff' : one(random, VERSIONS)
  const offset = header?.position.offset ?? 0
  const turn = below(random, header === null ? 40 : 1_000)
  if (turn < 15) {
    const [expected, fresh] = rebuildOf(world)
    return of('rebuild', (s) => s.rebuild(key, expected, fresh))
  }
  if (turn < 450) {
    const apply = await goodApply(world)
    return of('apply', (s) => s.apply(key, apply))
  }
  if (turn < 600) {
    const apply = await missingApply(world)
    return of('apply that misses', (s) => s.apply(key, apply))
  }
  if (turn < 720) {
    const desired = chance(random, 0.03)
      ? one(random, [-1, 1.5, Number.NaN])
      : Math.max(0, offset + below(random, 12) - 6)
    const wanted = chance(random, 0.3) ? 0 : desired
    return of('cut', (s) => s.cut(key, version, wanted))
  }
  if (turn < 800) {
    const starts = header?.views[version]?.epochs.map((e) => e.to) ?? []
    const upTo = starts.length > 0 && chance(random, 0.7) ? one(random, starts) : near(random, at(offset))
    return of('retire', (s) => s.retire(key, version, upTo))
  }
  if (turn < 880) {
    const limit = below(random, 8)
    return of('sweep', (s) => s.sweep(key, limit))
  }
  if (turn < 950) {
    const [place, name, epochs] = installOf(world)
    return of('install', (s) => s.install(key, place, name, epochs))
  }
  if (turn < 965) return of('dropVersion', (s) => s.dropVersion(key, version))
  const from = offset - below(random, 20)
  return of('changelog', (s) => s.changelog(key, from))
}

/** What a call came to: its value, or the code of its error. */
export const outcomeOf = (call: Call, store: SpeedStore): Promise<unknown> =>
  call.run(store).catch((error: { code?: string; message: string }) => ({ error: error.code ?? error.message }))

/** Everything that can be read under a key. Which blocks of a retiring epoch are left is not said, only how many. */
export const stateOf = async (store: SpeedStore, key: StoreKey): Promise<unknown> => {
  const header = await store.header(key)
  const texts = (blocks: Block[]) => blocks.map((b) => `${b.id} ${b.hash} ${blockHash(b.id, b.bytes)}`).sort()
  const epochs: Record<string, unknown> = {}
  for (const [version, view] of Object.entries(header?.views ?? {})) {
    for (const { from } of view.epochs)
      epochs[`${version} ${from.offset}`] = texts(await store.blocks(key, version, from))
    for (const from of view.retiring)
      epochs[`${version} ${from.offset} retiring`] = (await store.blocks(key, version, from)).length
  }
  return { header, epochs, changelog: await store.changelog(key, 0) }
}
