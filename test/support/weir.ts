/**
 * `weir` as a user types it. `weirChild` is the built product as a child process; `weir` runs the same program in this process
 * (a child costs half a second, mostly loading), with what it prints caught. One at a time.
 */
import { execFile } from 'node:child_process'
import { run } from '../../cli/program.ts'
import { MAIN } from './server.ts'

export type Ran = { code: number; out: string; err: string }

export const weirChild = (args: string[], env: Record<string, string> = {}, stdin?: string): Promise<Ran> =>
  new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [MAIN, ...args],
      { env: { ...process.env, ...env }, maxBuffer: 1 << 26 },
      (error, out, err) => resolve({ code: error === null ? 0 : Number(error.code), out, err }),
    )
    child.stdin?.end(stdin)
  })

type Write = typeof process.stdout.write

/** Catches what is written to a stream until `end`. */
const caught = (stream: NodeJS.WriteStream): { end(): string } => {
  const write = stream.write
  let text = ''
  stream.write = ((chunk: string | Uint8Array, encoding?: unknown, done?: unknown) => {
    text += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString('utf8')
    const callback = typeof encoding === 'function' ? encoding : done
    if (typeof callback === 'function') queueMicrotask(callback as () => void)
    return true
  }) as Write
  return {
    end: () => {
      stream.write = write
      return text
    },
  }
}

export const weir = async (args: string[], env: Record<string, string> = {}): Promise<Ran> => {
  const before = { ...process.env }
  Object.assign(process.env, env)
  const [out, err] = [caught(process.stdout), caught(process.stderr)]
  process.exitCode = undefined
  try {
    await run([process.execPath, MAIN, ...args])
    return { code: Number(process.exitCode ?? 0), out: out.end(), err: err.end() }
  } finally {
    out.end()
    err.end()
    process.exitCode = undefined
    for (const key of Object.keys(env)) {
      if (before[key] === undefined) delete process.env[key]
      else process.env[key] = before[key]
    }
  }
}
