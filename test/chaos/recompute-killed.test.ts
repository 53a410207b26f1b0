/** kill -9 of a server in the middle of a recompute that runs in child processes: they end with it, and the next run goes on. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type Server, startServer, until } from '../support/server.ts'
import { weir } from '../support/weir.ts'

const ROUNDS = 5
const EVENTS = 2_000

let folder: string
let server: Server | undefined
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weir-recompute-'))
})
afterEach(async () => {
  await server?.kill()
  await rm(folder, { recursive: true, force: true })
})

const post = async (path: string, body: string, type = 'application/json'): Promise<Response> => {
  const answer = await fetch(`${server!.url}${path}`, { method: 'POST', body, headers: { 'content-type': type } })
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`)
  return answer
}
type Job = { state: string; progress: number; result?: Record<string, unknown>; error?: unknown }
const start = async (action: string): Promise<string> => {
  const answer = await post(`/v1/views/visits_by_site/batch/${action}`, '{}')
  return ((await answer.json()) as { id: string }).id
}
const look = async (id: string): Promise<Job> => (await (await fetch(`${server!.url}/v1/jobs/${id}`)).json()) as Job
const ended = (id: string): Promise<Job> =>
  until(`job ${id}`, 60_000, async () => {
    const job = await look(id)
    return job.state === 'done' || job.state === 'failed' ? job : undefined
  })

/** Children of a process that run; the system tells (Linux). */
const childrenOf = async (pid: number): Promise<number[]> =>
  (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim().split(' ').filter(Boolean).map(Number)
const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

test.skipIf(process.platform !== 'linux')(
  'a recompute whose server is killed is continued by the next one',
  { timeout: 180_000 },
  async () => {
    const project = join(folder, 'project')
    const data = join(folder, 'data')
    await weir(['init', project])
    await writeFile(
      join(project, 'weir.yaml'),
      'schedules: { extend: "off", recompute: "off", compact: "off" }\nbatch: { recomputeShardBytes: 1024 }\n',
    )
    server = await startServer({ project, data })
    // Each extend archives a file of its own, and each file is a shard of its own.
    for (let round = 0; round < ROUNDS; round++) {
      const lines = Array.from({ length: EVENTS }, (_, i) => {
        const n = round * EVENTS + i
        const ts = new Date(Date.UTC(2026, 10, 20 + round, 10, 0, i % 600)).toISOString()
        return JSON.stringify({
          visit_id: `v-${n}`,
          ts,
          site: ['blog', 'shop'][n % 2],
          user_id: `u-${n % 170}`,
          seconds: n / 10,
          paid: '1.50',
        })
      })
      await post('/v1/events/visits', `${lines.join('\n')}\n`, 'application/x-ndjson')
      expect(await ended(await start('extend'))).toMatchObject({ state: 'done' })
    }

    const first = await start('recompute')
    const killed = server
    const children = await until('a shard that is done, and a child that runs the next one', 60_000, async () => {
      const { progress, state, error } = await look(first)
      if (state !== 'running' && state !== 'queued') throw new Error(`${state} ${JSON.stringify(error)}`)
      const running = await childrenOf(killed.child.pid!)
      return progress > 0 && progress < 0.5 && running.length > 0 ? running : undefined
    })
    await killed.kill()
    await until('the children to end', 20_000, async () => (children.some(isAlive) ? undefined : true))

    const records = await readdir(join(data, 'lake', 'jobs'), { recursive: true })
    expect(records.length).toBeGreaterThan(0)
    server = await startServer({ project, data })
    const { state, result } = await ended(await start('recompute'))
    expect({ state, result }).toMatchObject({
      state: 'done',
      result: { outcome: 'published', resumed: true, differing: 0 },
    })
    expect(result!.shards).toBeGreaterThan(2)
    const query = { view: 'visits_by_site', measures: ['visits_total'], dimensions: [], grain: 'all' }
    const answer = (await (await post('/v1/query', JSON.stringify(query))).json()) as {
      rows: { visits_total: unknown }[]
    }
    expect(answer.rows.map((r) => Number(r.visits_total))).toEqual([ROUNDS * EVENTS])
    expect(await server.stop()).toBe(0)
    server = undefined
  },
)
