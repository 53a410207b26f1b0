/** The built `weir` as a child process: what a user types and sees. */
import { execFile } from 'node:child_process'
import { MAIN } from './server.ts'

export type Ran = { code: number; out: string; err: string }

export const weir = (args: string[], env: Record<string, string> = {}, stdin?: string): Promise<Ran> =>
  new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [MAIN, ...args],
      { env: { ...process.env, ...env }, maxBuffer: 1 << 26 },
      (error, out, err) => resolve({ code: error === null ? 0 : Number(error.code), out, err }),
    )
    child.stdin?.end(stdin)
  })
