/** The server's own log: JSON lines on stderr, plain lines on a terminal. Invariant: no secret is ever in it. */
import { type Logger, pino } from 'pino'

export type { Logger } from 'pino'

const LEVELS: Record<number, string> = { 30: 'info', 40: 'warning', 50: 'error', 60: 'fatal' }

/** A line for people of pino's JSON. */
const plain = (line: string): string => {
  const { level, msg, source, code, next } = JSON.parse(line) as Record<string, unknown>
  const head = Number(level) >= 40 ? `${LEVELS[Number(level)] ?? level}: ` : ''
  const where = typeof source === 'string' ? `${source}: ` : ''
  return `${head}${where}${String(msg)}${code ? ` [${String(code)}]` : ''}${next ? `\n  next: ${String(next)}` : ''}\n`
}

/** `plainLines`: default on a terminal. Level by WEIR_LOG_LEVEL. */
export const openLogger = (plainLines = process.stderr.isTTY === true): Logger =>
  pino(
    {
      level: process.env.WEIR_LOG_LEVEL ?? 'info',
      base: { pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: {
        paths: ['*.headers.authorization', 'headers.authorization', 'key', 'token', '*.key', '*.token'],
        censor: '[secret]',
      },
    },
    { write: (line: string) => void process.stderr.write(plainLines ? plain(line) : line) },
  )

/** Says nothing but errors: for demos and tests. */
export const quietLogger = (): Logger => {
  const logger = openLogger(true)
  logger.level = 'error'
  return logger
}
