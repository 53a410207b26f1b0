/**
 * Real servers for tests, without containers: Kafka, Redis (one, and a cluster of 3 + 3) and an S3-compatible store on free loopback ports.
 *
 *     npm run services -- start | stop | env | restart <kafka|redis|s3|redis-cluster-1…6> [KILL|TERM]
 */
import { randomBytes } from 'node:crypto'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { dirname } from 'node:path'
import { installPackages } from './install.ts'
import { installKafka, kafkaAnswers, prepareKafka } from './kafka.ts'
import { clusterAnswers, joinCluster, prepareRedis, redisAnswers } from './redis.ts'
import {
  beganAt,
  end,
  isAlive,
  launch,
  RUN,
  readState,
  type Service,
  type State,
  say,
  waitFor,
  writeState,
} from './run-folder.ts'
import { installS3, prepareS3, s3Answers } from './s3.ts'

const CLUSTER_NODES = 6
const USAGE = 'usage: npm run services -- start | stop | env | restart <kafka|redis|s3|redis-cluster-1…6> [KILL|TERM]'

/** Null when the port is taken. */
const listen = (port: number): Promise<Server | null> =>
  new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(null)).listen(port, '127.0.0.1', () => resolve(server))
  })
const portOf = (server: Server): number => (server.address() as AddressInfo).port

/** Free ports, each with the one 10,000 above it free too: there a Redis of a cluster talks to the others. */
const freePorts = async (count: number): Promise<number[]> => {
  const [ports, rest]: [Server[], Server[]] = [[], []]
  while (ports.length < count) {
    const server = await listen(0)
    if (server === null) continue
    const above = portOf(server) > 55_000 ? null : await listen(portOf(server) + 10_000)
    if (above === null) rest.push(server)
    else {
      ports.push(server)
      rest.push(above)
    }
  }
  const found = ports.map(portOf)
  await Promise.all([...ports, ...rest].map((s) => new Promise((resolve) => s.close(resolve))))
  return found
}

const answers = (name: string): ((port: number) => Promise<boolean>) =>
  name === 'kafka' ? kafkaAnswers : name === 's3' ? s3Answers : redisAnswers

const ready = async (service: Service): Promise<void> => {
  await waitFor(service, () => answers(service.name)(service.port))
  say(`${service.name} answers on port ${service.port}`)
}

const printEnv = ({ env }: State): void => {
  for (const [name, value] of Object.entries(env)) process.stdout.write(`${name}=${value}\n`)
}

const stop = async (): Promise<void> => {
  const state = readState()
  if (state === null) return
  await Promise.all(state.services.map((service) => end(service)))
  await rm(RUN, { recursive: true, force: true })
  say('stopped')
}

/** One start at a time in a run folder: a file beside it names the process that starts. */
const alone = async (work: () => Promise<void>): Promise<void> => {
  const path = `${RUN}.starting`
  await mkdir(dirname(RUN), { recursive: true })
  const mine = JSON.stringify({ pid: process.pid, began: beganAt(process.pid) })
  const take = (): Promise<void> => writeFile(path, mine, { flag: 'wx' })
  await take().catch(async () => {
    const other = JSON.parse((await readFile(path, 'utf8')) || '{"pid":0}') as { pid: number; began: string }
    if (other.pid > 0 && isAlive(other)) throw new Error(`another start is under way, process ${other.pid}`)
    await rm(path, { force: true })
    await take()
  })
  try {
    await work()
  } finally {
    await rm(path, { force: true })
  }
}

const startAll = async (state: State, jars: string, gateway: string): Promise<void> => {
  const [kafka = 0, controller = 0, s3 = 0, redis = 0, ...nodes] = await freePorts(4 + CLUSTER_NODES)
  const key = { ROOT_ACCESS_KEY: 'weir', ROOT_SECRET_KEY: randomBytes(16).toString('hex') }
  const begin = async (name: string, port: number, command: string[], env = {}): Promise<void> => {
    state.services.push(await launch({ name, port, command, env }))
    // At once: what was started can be stopped, whatever comes.
    writeState(state)
  }
  await begin('kafka', kafka, await prepareKafka(jars, kafka, controller))
  await begin('s3', s3, await prepareS3(gateway, s3), key)
  await begin('redis', redis, await prepareRedis(redis, false))
  for (const [i, port] of nodes.entries()) await begin(`redis-cluster-${i + 1}`, port, await prepareRedis(port, true))
  await Promise.all(state.services.map(ready))
  await joinCluster(nodes)
  for (const service of state.services)
    if (nodes.includes(service.port)) await waitFor(service, () => clusterAnswers(service.port))
  say('the cluster is joined')

  state.env = {
    KAFKA_BROKERS: `127.0.0.1:${kafka}`,
    REDIS_URL: `redis://127.0.0.1:${redis}`,
    REDIS_CLUSTER: nodes.map((port) => `127.0.0.1:${port}`).join(','),
    S3_ENDPOINT: `http://127.0.0.1:${s3}`,
    S3_ACCESS_KEY_ID: key.ROOT_ACCESS_KEY,
    S3_SECRET_ACCESS_KEY: key.ROOT_SECRET_KEY,
    S3_REGION: 'us-east-1',
  }
  writeState(state)
}

const start = async (): Promise<void> => {
  const before = readState()
  if (before?.services.some(isAlive)) {
    if (before.services.every(isAlive) && Object.keys(before.env).length > 0)
      throw new Error(`already running in ${RUN}: stop them first, or set WEIR_SERVICES_RUN to another folder`)
    say('some of an earlier start are left: stopping them')
  }
  await stop()
  await installPackages()
  const [jars, gateway] = await Promise.all([installKafka(), installS3()])
  await mkdir(RUN, { recursive: true, mode: 0o700 })
  if ((await readdir(RUN)).length > 0)
    throw new Error(`${RUN} holds other things: set WEIR_SERVICES_RUN to a new folder`)
  const state: State = { services: [], env: {} }
  try {
    await startAll(state, jars, gateway)
  } catch (error) {
    // Logs stay, until the next start or stop.
    await Promise.all(state.services.map((service) => end(service)))
    throw error
  }
  printEnv(state)
}

const running = (): State => {
  const state = readState()
  if (state === null || Object.keys(state.env).length === 0)
    throw new Error(`nothing runs in ${RUN}: npm run services -- start`)
  return state
}

/** Ends a service by a signal and starts it again on its port and data. */
const restart = async (name: string, signal: string): Promise<void> => {
  const state = running()
  const at = state.services.findIndex((s) => s.name === name)
  if (at < 0 || !['KILL', 'TERM'].includes(signal)) throw new Error(USAGE)
  const { pid: _, began: __, ...service } = state.services[at]!
  await end(state.services[at]!, `SIG${signal}` as NodeJS.Signals)
  state.services[at] = await launch(service)
  writeState(state)
  await ready(state.services[at])
}

const main = async ([command, ...args]: string[]): Promise<void> => {
  if (command === 'start') await alone(start)
  else if (command === 'stop') await stop()
  else if (command === 'env') printEnv(running())
  else if (command === 'restart') await restart(args[0] ?? '', args[1] ?? 'TERM')
  else throw new Error(USAGE)
}

main(process.argv.slice(2)).catch((error: unknown) => {
  say(error instanceof Error ? error.message : String(error))
  process.exitCode = 1
})
