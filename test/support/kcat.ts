/** A foreign producer: kcat, which is librdkafka on the command line. */
import { spawn, spawnSync } from 'node:child_process'

export type KcatOptions = {
  codec?: 'none' | 'gzip' | 'snappy' | 'lz4' | 'zstd'
  /** Fixed partition; left out: librdkafka chooses by `partitioner`. */
  partition?: number
  /** Lines are `key<TAB>value`. */
  keyed?: boolean
  /** Further librdkafka settings, e.g. { partitioner: 'murmur2_random' }. */
  settings?: Record<string, string>
  /** Sends empty values as tombstones. */
  tombstones?: boolean
}

export const hasKcat = (): boolean => spawnSync('kcat', ['-V']).status === 0

/** Sends each line as one message; resolves when all are acknowledged. */
export const kcatProduce = (
  brokers: string,
  topic: string,
  lines: string[],
  options: KcatOptions = {},
): Promise<void> =>
  new Promise((resolve, reject) => {
    const settings = Object.entries(options.settings ?? {}).flatMap(([name, value]) => ['-X', `${name}=${value}`])
    const args = ['-P', '-b', brokers, '-t', topic, '-z', options.codec ?? 'none', ...settings]
    if (options.partition !== undefined) args.push('-p', String(options.partition))
    if (options.keyed) args.push('-K', '\t')
    if (options.tombstones) args.push('-Z')
    const child = spawn('kcat', args, { stdio: ['pipe', 'ignore', 'pipe'] })
    let stderr = ''
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString()
    })
    child.on('error', reject)
    child.on('close', (code) => (code === 0 ? resolve() : reject(new Error(`kcat ended with ${code}: ${stderr}`))))
    child.stdin.end(lines.map((line) => `${line}\n`).join(''))
  })
