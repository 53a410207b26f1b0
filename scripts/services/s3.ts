/** An S3-compatible store over a folder: versitygw, which keeps conditional writes, also of uploads in parts. Built from the Go proxy. */
import { mkdir } from 'node:fs/promises'
import { get } from 'node:http'
import { join } from 'node:path'
import { cached, run } from './install.ts'
import { RUN } from './run-folder.ts'

const VERSION = 'v1.8.0'

/** Path of the built program. Takes 2 to 5 minutes the first time. */
export const installS3 = async (): Promise<string> => {
  const folder = await cached(`versitygw-${VERSION}`, 'versitygw', async (into) => {
    const env = { GOBIN: into, GOFLAGS: '-ldflags=-s' }
    await run('go', ['install', `github.com/versity/versitygw/cmd/versitygw@${VERSION}`], env)
  })
  return join(folder, 'versitygw')
}

/** One process only: its conditions are kept by locks in memory. */
export const prepareS3 = async (program: string, port: number): Promise<string[]> => {
  const folder = join(RUN, 's3')
  await mkdir(folder, { recursive: true })
  return [program, '--port', `127.0.0.1:${port}`, '--quiet', 'posix', folder]
}

/** Any answer: without a signature it is a refusal. */
export const s3Answers = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const asked = get({ port, host: '127.0.0.1', agent: false, timeout: 2_000 }, (answer) => {
      answer.resume()
      resolve(true)
    })
    asked.on('timeout', () => asked.destroy()).on('error', () => resolve(false))
  })
