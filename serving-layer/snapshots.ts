/**
 * Sessions for queries, kept open between them. Invariant: a snapshot is one read transaction, begun while the caller holds
 * the reader's lock; a session that met an error is not used again.
 */
import type { Engine, RunOptions, Session } from '../engine/engine.ts'

export type Snapshot = {
  columns(sql: string, options: RunOptions): Promise<unknown[][]>
  /** Ends the transaction, if there is one, and gives the session back. */
  end(): Promise<void>
}

export type Snapshots = {
  /** A session that is not in a transaction: each statement sees what is there when it begins. */
  plain(): Promise<Snapshot>
  /** Begins a transaction and makes it see what is there now. */
  open(touch: string): Promise<Snapshot>
  close(): void
}

export const openSnapshots = (engine: Engine, keep: number): Snapshots => {
  const idle: Session[] = []
  let isOpen = true
  const take = async (): Promise<Session> => idle.pop() ?? (await engine.session())
  const over = (session: Session, finish: () => Promise<void>): Snapshot => {
    let broken = false
    const guarded = async <T>(run: () => Promise<T>): Promise<T> => {
      try {
        return await run()
      } catch (error) {
        broken = true
        throw error
      }
    }
    return {
      columns: (sql, options) => guarded(() => session.columns(sql, options)),
      end: async () => {
        if (!broken) await guarded(finish).catch(() => undefined)
        if (broken || !isOpen || idle.length >= keep) session.close()
        else idle.push(session)
      },
    }
  }
  return {
    plain: async () => over(await take(), async () => undefined),
    open: async (touch) => {
      const session = await take()
      try {
        await session.run('BEGIN TRANSACTION')
        await session.rows(touch)
      } catch (error) {
        session.close()
        throw error
      }
      return over(session, () => session.run('ROLLBACK'))
    },
    close: () => {
      isOpen = false
      for (const session of idle.splice(0)) session.close()
    },
  }
}
