/** A single Kafka broker (KRaft) from Maven Central. It answers when a metadata request names a broker. */
import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { cached, MAVEN_COPY, run } from './install.ts'
import { RUN } from './run-folder.ts'

const here = import.meta.dirname
const POM = join(here, 'pom.xml')
const VERSION = /<kafka\.version>(.+)<\/kafka\.version>/.exec(readFileSync(POM, 'utf8'))![1]!
const LOGGING = `-Dlog4j2.configurationFile=file:${join(here, 'log4j2.properties')}`

/** Folder of the broker's jars. */
export const installKafka = (): Promise<string> =>
  cached(`kafka-${VERSION}`, '.done', async (folder) => {
    await run('mvn', ['-q', '-B', '-f', POM, MAVEN_COPY, '-DincludeScope=runtime', `-DoutputDirectory=${folder}`])
    writeFileSync(join(folder, '.done'), '')
  })

/** 16 random bytes as Kafka writes them; not with a leading dash, which its formatter takes for an option. */
export const newClusterId = (): string => randomBytes(16).toString('base64url').replace(/^-/, '_')

/** Writes the broker's settings and formats its folder; its command. */
export const prepareKafka = async (jars: string, port: number, controller: number): Promise<string[]> => {
  const settings = join(RUN, 'server.properties')
  const values: Record<string, string> = {
    PORT: String(port),
    CONTROLLER: String(controller),
    DIR: join(RUN, 'kafka'),
  }
  const text = readFileSync(join(here, 'server.properties'), 'utf8')
  writeFileSync(
    settings,
    text.replace(/@(PORT|CONTROLLER|DIR)@/g, (_, name: string) => values[name]!),
  )
  const classes = ['-cp', join(jars, '*')]
  const id = newClusterId()
  await run('java', [
    '-Xmx128m',
    '-XX:TieredStopAtLevel=1',
    LOGGING,
    ...classes,
    'kafka.tools.StorageTool',
    'format',
    '-t',
    id,
    '-c',
    settings,
  ])
  return [
    'java',
    '-Xms256m',
    '-Xmx512m',
    '-XX:+UseSerialGC',
    '-XX:TieredStopAtLevel=1',
    LOGGING,
    ...classes,
    'kafka.Kafka',
    settings,
  ]
}

/** One raw Metadata (v1) request for no topics: its answer counts the brokers. */
export const kafkaAnswers = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const request = Buffer.alloc(18)
    request.writeInt32BE(14, 0) // size
    request.writeInt16BE(3, 4) // Metadata
    request.writeInt16BE(1, 6)
    request.writeInt32BE(7, 8) // correlation id
    request.writeInt16BE(-1, 12) // no client id
    request.writeInt32BE(0, 14) // no topics
    let answer = Buffer.alloc(0)
    const socket = connect(port, '127.0.0.1', () => socket.write(request))
    const done = (up: boolean): void => {
      socket.destroy()
      resolve(up)
    }
    socket.setTimeout(2_000, () => done(false))
    socket.on('error', () => done(false)).on('close', () => resolve(false))
    socket.on('data', (chunk) => {
      answer = Buffer.concat([answer, chunk])
      if (answer.length >= 12) done(answer.readInt32BE(8) > 0)
    })
  })
