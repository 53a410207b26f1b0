/**
 * What needs a person's eye: one alarm per source, raised and cleared by whoever owns the source.
 * Invariant: an alarm stands exactly as long as its source fails (notices, which nothing clears, for a stated time); it is
 * logged when it appears and when its text changes.
 */
import { WeirError } from '../model/errors.ts'

export type Alarm = { source: string; code: string; message: string; next?: string; since: string; count: number }

export type Alarms = {
  /** `fadeMs`: for a notice, how long it stands. */
  raise(source: string, error: unknown, fadeMs?: number): void
  clear(source: string): void
  list(): Alarm[]
}

type Log = { error(data: object, text: string): void; info(data: object, text: string): void }

export const openAlarms = (log: Log, now: () => number = Date.now): Alarms => {
  const standing = new Map<string, Alarm & { until: number }>()
  const fade = (): void => {
    for (const [source, alarm] of standing) if (alarm.until <= now()) standing.delete(source)
  }
  return {
    raise: (source, error, fadeMs) => {
      fade()
      const known = error instanceof WeirError ? error : undefined
      const code = known?.code ?? 'WEIR_CLI_UNEXPECTED'
      const message = error instanceof Error ? error.message : String(error)
      const before = standing.get(source)
      standing.set(source, {
        source,
        code,
        message,
        ...(known?.next === undefined ? {} : { next: known.next }),
        since: before?.since ?? new Date(now()).toISOString(),
        count: (before?.count ?? 0) + 1,
        until: fadeMs === undefined ? Number.POSITIVE_INFINITY : now() + fadeMs,
      })
      if (before?.code !== code || before.message !== message)
        log.error({ source, code, next: known?.next, ...(known ? {} : { err: error }) }, message)
    },
    clear: (source) => {
      const before = standing.get(source)
      if (!before) return
      standing.delete(source)
      log.info({ source, code: before.code }, 'works again')
    },
    list: () => {
      fade()
      return [...standing.values()].map(({ until: _, ...alarm }) => alarm)
    },
  }
}
