/**
 * Weir on real servers: produce, drain, bytes in Redis and produce → visible, with the CPU of broker and Redis. Skipped where
 * the environment does not name the servers.
 */
import {
  type Case,
  figuresOf,
  measuredText,
  median,
  type Results,
  type Row,
  rateRow,
  rates,
  ratioRow,
} from '../harness/case.ts'
import { drainTopic, prepareTopic } from './cluster-drain.ts'
import { type Batch, produce, SOCKETS } from './cluster-produce.ts'
import { missingServers, nameOf, removeAll } from './cluster-servers.ts'
import { REQUESTS, visibleOnServers } from './cluster-visible.ts'
import { speed } from './speed.ts'

const BATCHES: Batch[] = [5000, 1000]
const PARTITIONS = [1, 4]
const ALL = ['cpuS', 'brokerS', 'redisS']

const over = (a: number[], b: number[]): number[] => a.map((n, i) => n / b[i]!)

const row = (what: string, all: number[], text: (n: number) => string, best = Math.min): Row => ({
  what,
  best: measuredText(best(...all), text),
  median: measuredText(median(all), text),
})

const perSecond = (results: Results, variant: string): Row =>
  row(
    '… per second',
    over(figuresOf(results, variant, 'events'), figuresOf(results, variant, 'wallS')),
    (n) => `${Math.round(n).toLocaleString('en')} events/s`,
    Math.max,
  )

const produceRows = (results: Results, batch: Batch): Row[] => {
  const variant = `produce-${batch}`
  return [
    rateRow(`produce, ${batch} events a request: Weir`, results, variant),
    rateRow('… the broker', results, variant, ['brokerS']),
    rateRow('… together', results, variant, ['cpuS', 'brokerS']),
    perSecond(results, variant),
  ]
}

const drainRows = (results: Results, partitions: number): Row[] => {
  const variant = `drain-${partitions}`
  const bytes = figuresOf(results, variant, 'bytes')
  const perCell = (what: string, figure: string): Row =>
    row(what, over(bytes, figuresOf(results, variant, figure)), (n) => `${n.toFixed(1)} bytes`)
  const s = partitions === 1 ? '' : 's'
  return [
    rateRow(`drain, ${partitions} partition${s}, ${partitions} worker process${s && 'es'}: Weir`, results, variant),
    rateRow('… the broker', results, variant, ['brokerS']),
    rateRow('… Redis', results, variant, ['redisS']),
    rateRow('… together', results, variant, ALL),
    ratioRow('… together / embedded', rates(results, variant, ALL), rates(results, 'embedded')),
    perSecond(results, variant),
    perCell('… in Redis a cell answered', 'answered'),
    perCell('… in Redis a cell stored (each partition has its own)', 'stored'),
  ]
}

const visibleRows = (results: Results, rate: number): Row[] => {
  const figure = (name: string): number[] => figuresOf(results, 'visible', name)
  const ms = (what: string, name: string): Row => row(what, figure(name), (n) => `${n.toFixed(0)} ms`)
  const load = (what: string, name: string): Row =>
    row(what, over(figure(name), figure('wallS')), (n) => `${(n * 100).toFixed(0)} % of a core`)
  return [
    ms(`visible, ${rate} events/s: acknowledged, p50`, 'ackP50'),
    ms('… acknowledged, p99', 'ackP99'),
    ms('… visible in an answer, p50', 'visibleP50'),
    ms('… visible in an answer, p99', 'visibleP99'),
    load(`… CPU of Weir (all roles, ${REQUESTS} queries a second)`, 'cpuS'),
    load('… CPU of the broker', 'brokerS'),
    load('… CPU of Redis', 'redisS'),
  ]
}

export const cluster: Case = {
  name: 'cluster',
  about: 'Weir on Kafka, Redis and S3, the CPU of broker and Redis included',
  skip: missingServers,
  prepare: async (env) => {
    await speed.prepare!(env)
    for (const partitions of PARTITIONS) await prepareTopic(env, partitions)
  },
  finish: (env) => removeAll(nameOf(env)),
  variants: {
    // What the drains must answer too; they cost what they cost in the speed case.
    bare: speed.variants.bare!,
    embedded: speed.variants.weir!,
    ...Object.fromEntries(PARTITIONS.map((n) => [`drain-${n}`, drainTopic(n)])),
    ...Object.fromEntries(BATCHES.map((n) => [`produce-${n}`, produce(n)])),
    visible: visibleOnServers,
  },
  report: (results, { steady }) => ({
    rows: [
      ...BATCHES.flatMap((batch) => produceRows(results, batch)),
      rateRow('drain, embedded (LMDB log and store)', results, 'embedded'),
      ...PARTITIONS.flatMap((partitions) => drainRows(results, partitions)),
      ...visibleRows(results, steady),
    ],
    notes: [
      `Produce: the ingest role alone, one partition, durable as acks=-1 of one broker is; requests under way at a time: ${BATCHES.map((b) => `${SOCKETS[b]} with ${b} events`).join(', ')}. Drain: the three views of the speed case over a prepared topic, answers equal to the embedded drain’s and to bare DuckDB’s. Visible: all roles in one process, ${steady / REQUESTS} events a request; the timetable fell behind by at most ${Math.max(...figuresOf(results, 'visible', 'lateMs')).toFixed(0)} ms.`,
      'The CPU of broker and Redis is all that those processes used meanwhile, to 10 ms, and theirs alone: the object store’s is not in it. Bytes in Redis are MEMORY USAGE of all keys (blocks, header, changelog).',
    ],
  }),
}
