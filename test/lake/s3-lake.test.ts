/** A whole lake on S3: racing archivers behind a faulty proxy stay exactly once, and a commit names only files that are there. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { type Engine, openEngine } from '../../engine/engine.ts'
import { type Lake, openLake } from '../../lake/lake.ts'
import { openPublications } from '../../lake/publications.ts'
import type { ObjectStore } from '../../model/ports/object-store.ts'
import { noFaults, type S3Proxy, seededFaults, startS3Proxy } from '../support/s3-proxy.ts'
import { service } from '../support/services.ts'
import { type TestBucket, testBucket } from './s3-support.ts'
import { archive, at, orders, position } from './support.ts'

const endpoint = service('S3_ENDPOINT')
const dataset = orders()

describe.skipIf(endpoint === null)('a lake on S3', () => {
  let bucket: TestBucket
  let proxy: S3Proxy
  let engine: Engine
  const opened: ObjectStore[] = []
  const store = async (): Promise<ObjectStore> => {
    const made = await bucket.open({ endpoint: proxy.endpoint, probe: false, pauseMs: 4 })
    opened.push(made)
    return made
  }
  /** As on another machine: own store, own cache, own snapshots. */
  const lake = async (): Promise<Lake> => openLake({ store: await store(), engine, checkpointEvery: 3 })

  beforeAll(async () => {
    engine = await openEngine()
    proxy = await startS3Proxy(endpoint!)
  })
  afterEach(async () => {
    proxy.plan(noFaults)
    await proxy.flush()
    for (const made of opened.splice(0)) await made.close()
    await bucket.remove()
  })
  afterAll(async () => {
    await proxy?.close()
    await engine?.close()
  })

  it('commits each range exactly once among archivers, under faults', async () => {
    bucket = await testBucket(endpoint!)
    const lakes = [await lake(), await lake(), await lake()]
    let before = { counted: 0, duplicate: 0, dead: 0 }
    for (let from = 0; from < 24; from += 2) {
      proxy.plan(seededFaults(from + 7, 0.3, [409, 412, 500, 503, 'cut-before', 'cut-after', 'cut-body', 'late']))
      const done = await Promise.all(lakes.map((l) => archive(l, dataset, { from, to: from + 2, before })))
      expect(done.filter((d) => d.outcome === 'archived')).toHaveLength(1)
      before = done[0]!
    }
    proxy.plan(noFaults)
    await proxy.flush()
    const reader = await lake()
    const below = { '0': position(24, at(23)) }
    expect(await reader.events(dataset).archived(0)).toMatchObject({
      position: below['0'],
      counted: before.counted,
      duplicate: before.duplicate,
    })
    const scan = await reader.scan(dataset, { below, duplicates: true })
    expect(scan.files).toHaveLength(12)
    const rows = await engine.withSession((s) =>
      s.rows(`SELECT count(*) AS n, count(DISTINCT (_offset, _index)) AS d, max(_offset) AS last FROM ${scan.sql}`),
    )
    expect(rows).toEqual([{ n: '72', d: '72', last: '23' }])
  })

  it('names a file in a commit only after the store has shown it', async () => {
    bucket = await testBucket(endpoint!)
    const from = proxy.seen.length
    await archive(await lake(), dataset, { from: 0, to: 5 })
    const steps = proxy.seen.slice(from).filter((r) => r.method !== 'GET')
    expect(steps.map((r) => `${r.method} ${r.path.split('.').at(-1)}`)).toEqual([
      'PUT parquet',
      'HEAD parquet',
      'PUT json',
    ])
  })

  it('gives a lease, and the place of the active version, to one among several, under faults', async () => {
    bucket = await testBucket(endpoint!)
    const publishers = await Promise.all(Array.from({ length: 4 }, async () => openPublications(await store())))
    proxy.plan(seededFaults(3, 0.3, [409, 412, 500, 503, 'cut-before', 'cut-after', 'late']))
    for (let round = 0; round < 10; round++) {
      const held = await Promise.all(publishers.map((p, i) => p.claim('v', 'v1', `runner ${i}`, 60_000)))
      const holders = held.flatMap((h, i) => (h ? [i] : []))
      // A lease only orders who tries: it may go to nobody in a race, never to two.
      expect(holders.length).toBeLessThanOrEqual(1)
      for (const i of holders) await publishers[i]!.release('v', 'v1', `runner ${i}`)
    }
    for (let round = 0; round < 10; round++) {
      const token = (await publishers[0]!.active('v'))?.token ?? null
      const outcomes = await Promise.all(publishers.map((p, i) => p.activate('v', `r${round}v${i}`, token)))
      expect(outcomes.filter((o) => o === 'activated')).toHaveLength(1)
      expect((await publishers[1]!.active('v'))?.version).toBe(`r${round}v${outcomes.indexOf('activated')}`)
    }
  })
})
