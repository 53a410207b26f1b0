/** A broker of the test's own, to be killed: from the jars that the services keep in their cache. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { newClusterId } from '../../scripts/services/kafka.ts'
import { kafkaOf, until } from './kafka-support.ts'

const run = promisify(execFile)
const CACHE = process.env.WEIR_SERVICES_CACHE ?? join(homedir(), '.cache', 'weir-services')
const TEMPLATE = join(import.meta.dirname, '..', '..', 'scripts', 'services', 'server.properties')

/** Folder of the jars; null when the services were never started on this machine. */
export const brokerJars = (): string | null => {
  const found = existsSync(CACHE) ? readdirSync(CACHE).find((name) => name.startsWith('kafka-')) : undefined
  return found === undefined ? null : join(CACHE, found)
}

export type OwnBroker = {
  address: string
  /** The listener with TLS and SASL, and the certificate to trust. */
  secure: { address: string; certificate: string } | undefined
  /** Folder of its log. */
  folder: string
  start(): Promise<void>
  /** kill -9; resolves when it is dead. */
  kill(): Promise<void>
  remove(): Promise<void>
}

const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })

const java = (jars: string, main: string, ...args: string[]): string[] => [
  '-Xmx256m',
  '-XX:+UseSerialGC',
  '-XX:TieredStopAtLevel=1',
  '-cp',
  join(jars, '*'),
  main,
  ...args,
]

/** A listener of its own with TLS and SASL: user `weir` may do all, `guest` nothing; the password is `secret`. */
const secureListener = async (port: number, place: string): Promise<{ settings: string; certificate: string }> => {
  const [key, certificate] = [join(place, 'key.pem'), join(place, 'certificate.pem')]
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1']
  const files = ['-keyout', key, '-out', certificate, '-days', '2']
  await run('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', ...files, ...subject])
  const both = join(place, 'both.pem')
  writeFileSync(both, readFileSync(key, 'utf8') + readFileSync(certificate, 'utf8'))
  const login = 'org.apache.kafka.common.security'
  const settings = `
listeners=PLAINTEXT://127.0.0.1:@PORT@,CONTROLLER://127.0.0.1:@CONTROLLER@,SECURE://127.0.0.1:${port}
advertised.listeners=PLAINTEXT://127.0.0.1:@PORT@,SECURE://127.0.0.1:${port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL
ssl.keystore.type=PEM
ssl.keystore.location=${both}
listener.name.secure.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256
listener.name.secure.plain.sasl.jaas.config=${login}.plain.PlainLoginModule required user_weir="secret" user_guest="secret";
listener.name.secure.scram-sha-256.sasl.jaas.config=${login}.scram.ScramLoginModule required;
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:weir
`
  return { settings, certificate: readFileSync(certificate, 'utf8') }
}

type BrokerOptions = {
  /** With a second listener (TLS, SASL). */
  secure?: boolean
  controllerPort?: number
  clusterId?: string
  /** Lines that replace those of the template. */
  settings?: string
}

/** Brokers of one cluster, every partition on all of them; two make a majority and may acknowledge. None is started yet. */
export const prepareCluster = async (jars: string, nodes: number): Promise<OwnBroker[]> => {
  const clusterId = newClusterId()
  const ports = await Promise.all(Array.from({ length: nodes }, freePort))
  const voters = ports.map((port, i) => `${i + 1}@127.0.0.1:${port}`).join(',')
  const settings = (node: number): string => `
node.id=${node}
controller.quorum.voters=${voters}
default.replication.factor=${nodes}
offsets.topic.replication.factor=${nodes}
min.insync.replicas=2
`
  return Promise.all(
    ports.map((controllerPort, i) => prepareBroker(jars, { controllerPort, clusterId, settings: settings(i + 1) })),
  )
}

/** Formats the folder; the broker is not started yet. */
export const prepareBroker = async (jars: string, options: BrokerOptions = {}): Promise<OwnBroker> => {
  const place = await mkdtemp(join(tmpdir(), 'weir-broker-'))
  const settings = join(place, 'server.properties')
  const folder = join(place, 'kafka')
  const port = await freePort()
  const values: Record<string, string> = {
    PORT: String(port),
    CONTROLLER: String(options.controllerPort ?? (await freePort())),
    DIR: folder,
  }
  const securePort = await freePort()
  const secure = options.secure ? await secureListener(securePort, place) : undefined
  // Later lines replace earlier ones.
  const text = `${readFileSync(TEMPLATE, 'utf8')}${secure?.settings ?? ''}${options.settings ?? ''}`.replace(
    /@(\w+)@/g,
    (_, name: string) => values[name]!,
  )
  await writeFile(settings, text)
  const id = options.clusterId ?? newClusterId()
  const user = secure === undefined ? [] : ['--add-scram', 'SCRAM-SHA-256=[name=weir,password=secret]']
  const format = java(jars, 'kafka.tools.StorageTool', 'format', '-t', id, '-c', settings, ...user)
  await run('java', format)
  const address = `127.0.0.1:${port}`
  let child: ChildProcess | undefined
  const kill = async (): Promise<void> => {
    const running = child
    child = undefined
    if (running === undefined || running.exitCode !== null) return
    const ended = new Promise((resolve) => running.once('exit', resolve))
    running.kill('SIGKILL')
    await ended
  }
  const answers = async (): Promise<boolean> => {
    const admin = kafkaOf(address, { retry: { retries: 0 }, connectionTimeout: 500 }).admin()
    try {
      await admin.connect()
      return (await admin.describeCluster()).brokers.length > 0
    } catch {
      return false
    } finally {
      await admin.disconnect().catch(() => undefined)
    }
  }
  return {
    address,
    secure: secure && { address: `127.0.0.1:${securePort}`, certificate: secure.certificate },
    folder,
    kill,
    start: async () => {
      child = spawn('java', java(jars, 'kafka.Kafka', settings), { stdio: 'ignore' })
      await until('the broker answers', answers, 90_000)
    },
    remove: async () => {
      await kill()
      await rm(place, { recursive: true, force: true })
    },
  }
}
