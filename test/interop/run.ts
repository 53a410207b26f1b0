/**
 * `npm run interop [-- --no-spark] [--install]`: fills lakes through the product, in a folder and on S3, and has delta-rs and Spark read
 * every table at every stage. One line per check; exit 1 on any difference. With `--install` it makes the readers ready, and stops there.
 */
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { openEngine } from '../../engine/engine.ts'
import { openFolderStore } from '../../lake/folder-object-store.ts'
import { testBucket } from '../lake/s3-support.ts'
import { service } from '../support/services.ts'
import { prepare } from './cache.ts'
import { openReader, type Reader } from './reader.ts'
import { type Place, showAll } from './stages.ts'

const { values } = parseArgs({
  options: { 'no-spark': { type: 'boolean', default: false }, install: { type: 'boolean', default: false } },
})

const folder = await mkdtemp(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'weir-interop-'))
const engine = await openEngine({ threads: 1, memoryLimit: '512MB' })
const readers: Reader[] = []
let failed = false
const report = (ok: boolean, line: string, details: string[] = []): void => {
  console.log(`${ok ? 'ok  ' : 'FAIL'} ${line}`)
  for (const detail of details) console.log(`       ${detail}`)
  failed ||= !ok
}

const places = async (): Promise<Place[]> => {
  const local: Place = {
    name: 'folder',
    open: () => openFolderStore(join(folder, 'lake')),
    address: (root) => ({ table: join(folder, 'lake', root) }),
    remove: () => Promise.resolve(),
    readers,
  }
  const endpoint = service('S3_ENDPOINT')
  if (endpoint === null) return [local]
  const bucket = await testBucket(endpoint)
  const { accessKeyId, secretAccessKey } = bucket.options.credentials!
  const storage = {
    AWS_ENDPOINT_URL: endpoint,
    AWS_REGION: bucket.options.region ?? 'us-east-1',
    AWS_ACCESS_KEY_ID: accessKeyId,
    AWS_SECRET_ACCESS_KEY: secretAccessKey,
    AWS_ALLOW_HTTP: String(endpoint.startsWith('http:')),
  }
  const s3: Place = {
    name: 's3',
    open: () => bucket.open(),
    address: (root) => ({ table: `s3://${bucket.options.bucket}/${bucket.options.prefix}${root}`, storage }),
    remove: () => bucket.remove(),
    // Spark needs other jars and other settings for S3, and writes no log there that is safe beside ours.
    readers: readers.filter((reader) => reader.name === 'delta-rs'),
  }
  return [local, s3]
}

try {
  const names = values['no-spark'] ? (['delta-rs'] as const) : (['delta-rs', 'spark'] as const)
  const reasons = await Promise.all(names.map(prepare))
  for (const [i, name] of names.entries()) {
    const reason = reasons[i]!
    if (reason === null && values.install) report(true, `${name} is ready`)
    else if (reason === null) readers.push(await openReader(name))
    else if (process.env.CI) report(false, `${name} must be read with here`, [reason])
    else console.log(`skip ${name}: ${reason}`)
  }
  if (readers.length > 0)
    for (const place of await places())
      try {
        await showAll(engine, place, join(folder, `work-${place.name}`), report)
      } finally {
        await place.remove()
      }
} finally {
  for (const reader of readers) await reader.close()
  await engine.close()
  await rm(folder, { recursive: true, force: true })
}
process.exitCode = failed ? 1 : 0
