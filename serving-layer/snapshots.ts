/**
 * Sessions for queries, kept open between them. Invariant: a snapshot is one read transaction, begun while the caller holds
 * the reader's lock; a session that met an error is not used again.
 */
import type { Engine, RunOptions, Session } from '../engine/engine.ts'

export type Snapshot = {
  columns(sql: string, options: RunOptions): Promise<unknown[][]>
  /** Ends the transaction and gives the session back. */
  end(): Promise<void>
}

export type Snapshots = {
  /** Begins a transaction and makes it see what is there now. */
  open(touch: string): Promise<Snapshot>
  close(): void
}

export const openSnapshots = (engine: Engine, keep: number): Snapshots => {
  const idle: Session[] = []
  let isOpen = true
  return {
    open: async (touch) => {
      const session = idle.pop() ?? (await engine.session())
      let broken = false
      try {
        await session.run('BEGIN TRANSACTION')
        await session.rows(touch)
      } catch (error) {
        session.close()
        throw error
      }
      return {
        columns: async (sql, options) => {
          try {
            return await session.columns(sql, options)
          } catch (error) {
            broken = true
            throw error
          }
        },
        end: async () => {
          if (!broken)
            await session.run('ROLLBACK').catch(() => {
              broken = true
            })
          if (broken || !isOpen || idle.length >= keep) session.close()
          else idle.push(session)
        },
      }
    },
    close: () => {
      isOpen = false
      for (const session of idle.splice(0)) session.close()
    },
  }
}
