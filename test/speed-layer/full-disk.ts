/**
 * A process of its own for the full-disk test: `<folder>` lies on a small disk. An unhandled rejection ends it with an error.
 */
import { randomFillSync } from 'node:crypto'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { blockHash, digestOf } from '../../model/digest.ts'
import { genesis } from '../../model/position.ts'
import { openLmdbSpeedStore } from '../../speed-layer/lmdb-speed-store.ts'

const folder = process.argv[2]!
const KEY = { dataset: 'orders', partition: 0 }
const VERSION = '1111111111111111'
const start = genesis('log')
const check = (is: boolean, what: string): void => {
  if (!is) throw new Error(`not so: ${what}`)
}

const store = await openLmdbSpeedStore({ folder: join(folder, 'speed') })
await store.rebuild(KEY, null, {
  formatVersion: 1,
  position: start,
  counted: 0,
  duplicate: 0,
  dead: 0,
  watermarkUs: null,
  views: {
    [VERSION]: {
      epochs: [{ from: start, to: start, blocks: 0, digest: digestOf([]) }],
      retiring: [],
    },
  },
})
await writeFile(join(folder, 'ballast'), Buffer.alloc(1_500_000))

const hashes: string[] = []
let at = start
const apply = async (): Promise<void> => {
  const n = at.offset
  const id = `b.${n}`
  const bytes = randomFillSync(Buffer.alloc(100_000))
  const hash = blockHash(id, bytes)
  const to = { ...at, offset: n + 1, fingerprint: String(n).padStart(16, '0') }
  const write = { epoch: start, blocks: [{ id, bytes, hash }], blockCount: n + 1, digest: digestOf([...hashes, hash]) }
  const counters = { counted: 0, duplicate: 0, dead: 0, watermarkUs: null }
  check((await store.apply(KEY, { from: at, to, ...counters, views: { [VERSION]: write } })) === 'applied', 'applied')
  hashes.push(hash)
  at = to
}
const matches = async (): Promise<boolean> => {
  const header = await store.header(KEY)
  const blocks = await store.blocks(KEY, VERSION, start)
  return header?.position.offset === at.offset && digestOf(blocks.map((b) => b.hash)) === digestOf(hashes)
}

const failures: (string | undefined)[] = []
while (failures.length < 3 && at.offset < 1_000) {
  try {
    await apply()
  } catch (error) {
    failures.push((error as { code?: string }).code)
  }
}
check(failures.length === 3 && failures.every((c) => c === 'WEIR_SPEED_WRITE_FAILED'), `refused: ${failures.join()}`)
check(await matches(), 'what was applied, and no more, is stored')
await rm(join(folder, 'ballast'))
await apply()
check(await matches(), 'applies come back when there is room')
await store.close()
process.stdout.write('ok\n')
