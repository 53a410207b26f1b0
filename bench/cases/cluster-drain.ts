/**
 * Drain: speed workers, each in a process of its own, over a prepared topic into Redis, with the three views of the speed
 * case. Invariant: the answer is that of all partitions together, so it is that of the same events anywhere else.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { mergeCellsSql, unpackSql } from '../../model/cells.ts'
import type { Epoch, SpeedStore } from '../../model/ports/speed-store.ts'
import type { Position } from '../../model/position.ts'
import { speedDigest } from '../answers.ts'
import type { Env, Measured } from '../harness/case.ts'
import { appendEvents, streamOf } from '../prepare.ts'
import { DATASET, openWorld, type World } from '../world.ts'
import { countServers, kafkaLog, nameOf, redisBytes, redisStore, underName } from './cluster-servers.ts'

export type WorkerTask = { topic: string; keys: string; data: string; partition: number }
export type WorkerDone = { counted: number; duplicate: number; dead: number; cpuS: number; wallS: number }

const topicOf = (env: Env, partitions: number): string => `${nameOf(env)}-topic-${partitions}`

/** The stream's records, one after the other over the partitions. */
export const prepareTopic = async (env: Env, partitions: number): Promise<void> => {
  const log = await kafkaLog(topicOf(env, partitions))
  try {
    await log.create(DATASET, partitions)
    let next = 0
    const spread = {
      ...log,
      append: (...[dataset, , records]: Parameters<typeof log.append>) =>
        log.append(dataset, next++ % partitions, records),
    }
    await appendEvents(spread, streamOf(env.sizes.events))
  } finally {
    await log.close()
  }
}

/** All partitions of a drained store as if they were one: readers that know of partition 0 alone see everything. */
const asOne = async (store: SpeedStore, partitions: number): Promise<SpeedStore> => {
  const headers = await Promise.all(
    Array.from({ length: partitions }, (_, partition) => store.header({ dataset: DATASET, partition })),
  )
  // Epochs of several partitions may start at the same offset; each position is an object of its own.
  const places = new Map<Position, number>()
  const views: Record<string, { epochs: Epoch[]; retiring: Position[] }> = {}
  for (const [partition, header] of headers.entries()) {
    if (header === null) throw new Error(`partition ${partition} has no cells`)
    for (const [version, { epochs }] of Object.entries(header.views)) {
      views[version] ??= { epochs: [], retiring: [] }
      views[version].epochs.push(...epochs)
      for (const { from } of epochs) places.set(from, partition)
    }
  }
  return {
    ...store,
    header: async () => ({ ...headers[0]!, views }),
    blocks: (key, version, epoch, ids) => store.blocks({ ...key, partition: places.get(epoch)! }, version, epoch, ids),
  }
}

/** Cells of all views: those stored, and those answered when the ones of all partitions are merged. */
const countCells = async (world: World): Promise<{ stored: number; answered: number }> => {
  const key = { dataset: DATASET, partition: 0 }
  const header = (await world.ctx.speed.header(key))!
  const sum = { stored: 0, answered: 0 }
  for (const view of world.project.views) {
    const epochs = header.views[view.version]!.epochs
    const blocks = await Promise.all(epochs.map((e) => world.ctx.speed.blocks(key, view.version, e.from)))
    const file = join(world.engine.scratchDir, `count-${view.name}.ndjson`)
    await writeFile(file, Buffer.concat(blocks.flat().map((b) => b.bytes)))
    const cells = `(${unpackSql(view, file)})`
    const [row] = await world.engine.withSession((session) =>
      session.rows<{ stored: string; answered: string }>(
        `SELECT (SELECT count(*) FROM ${cells}) AS stored, (SELECT count(*) FROM (${mergeCellsSql(view, cells)})) AS answered`,
      ),
    )
    sum.stored += Number(row!.stored)
    sum.answered += Number(row!.answered)
    await rm(file)
  }
  return sum
}

/** Digest of the answers, cells and bytes of what is under a name in Redis. */
const inspect = async (env: Env, keys: string, partitions: number) => {
  const data = join(env.scratch, 'look')
  await mkdir(data)
  const world = await openWorld({ project: 'stream', data })
  const store = await redisStore(keys)
  try {
    const whole = { ...world, ctx: { ...world.ctx, speed: await asOne(store, partitions) } }
    return { answer: await speedDigest(whole), ...(await countCells(whole)), bytes: await redisBytes(keys) }
  } finally {
    await store.close()
    await world.close()
  }
}

const program = join(dirname(fileURLToPath(import.meta.url)), 'cluster-worker.js')

/** The next message of a worker; throws when it ends without one. */
const told = <T>(child: ChildProcess): Promise<T> =>
  new Promise((resolve, reject) => {
    const ended = (code: number | null): void => reject(new Error(`a worker ended with ${code}`))
    child.once('exit', ended)
    child.once('message', (message) => {
      child.off('exit', ended)
      resolve(message as T)
    })
  })

const work = async (env: Env, keys: string, partitions: number) => {
  const workers: ChildProcess[] = []
  try {
    for (let partition = 0; partition < partitions; partition++) {
      const data = join(env.scratch, `worker-${partition}`)
      await mkdir(data)
      const task: WorkerTask = { topic: topicOf(env, partitions), keys, data, partition }
      workers.push(fork(program, [JSON.stringify(task)], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] }))
    }
    await Promise.all(workers.map((w) => told<'ready'>(w)))
    const others = countServers()
    const began = performance.now()
    const telling = workers.map((w) => told<WorkerDone>(w))
    const ending = workers.map((w) => once(w, 'exit'))
    for (const worker of workers) worker.send('go')
    const done = await Promise.all(telling)
    const [servers, wallS] = [others(), (performance.now() - began) / 1_000]
    await Promise.all(ending)
    return { done, servers, wallS }
  } finally {
    for (const worker of workers) worker.kill('SIGKILL')
  }
}

export const drainTopic =
  (partitions: number) =>
  (env: Env): Promise<Measured> =>
    underName(env, `drain-${partitions}`, async (keys) => {
      const { done, servers, wallS } = await work(env, keys, partitions)
      const sum = (figure: keyof WorkerDone): number => done.reduce((s, d) => s + d[figure], 0)
      const events = sum('counted')
      if (events !== env.sizes.events || sum('duplicate') + sum('dead') > 0)
        throw new Error(`${events} counted, ${sum('duplicate')} duplicate, ${sum('dead')} dead of ${env.sizes.events}`)
      const { answer, ...held } = await inspect(env, keys, partitions)
      return { figures: { events, cpuS: sum('cpuS'), wallS, ...servers, ...held }, answer }
    })
