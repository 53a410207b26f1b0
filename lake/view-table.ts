/**
 * `views/<view>/<version>`: the mirror of a published generation as a Delta table, for readers that know no Weir.
 * Invariant: the pointer is the truth and the mirror follows it: one commit per generation, named by its txn, never backwards; a
 * mirror left behind by a crash is brought up by the next call.
 */
import type { Session } from '../engine/engine.ts'
import { cellColumns } from '../model/cells.ts'
import { ident, literal } from '../model/ident.ts'
import type { Pointer } from '../model/ports/publications.ts'
import type { View } from '../model/view.ts'
import { discard, otherSchema, removalOf, type WrittenFile, writeDataFile } from './data-file.ts'
import type { Action } from './delta-actions.ts'
import { isNested, storeList } from './delta-schema.ts'
import { type DeltaContext, type DeltaTable, openDeltaTable } from './delta-table.ts'
import { checkFormat, checkSchema, creation } from './events-table.ts'

export type ViewTable = {
  delta: DeltaTable
  /** Generation that the mirror shows; 0 before the first. */
  generation(): Promise<number>
  /** Brings the mirror to the pointer's generation; 'current' when it is there already or beyond. */
  mirror(pointer: Pointer): Promise<'mirrored' | 'current'>
}

export const openViewTable = (context: DeltaContext, view: View): ViewTable => {
  const { store, engine } = context
  const root = `views/${view.name}/${view.version}`
  const delta = openDeltaTable(context, root)
  const columns = cellColumns(view)
  const appId = `publish/${view.name}/${view.version}`

  const generation = async (): Promise<number> => (await delta.snapshot())?.txns.get(appId) ?? 0

  /** A part may hold states as they are or in their stored form (text); a 128-bit integer in Parquet is a double, and lost. */
  const mirrorSelect = async (session: Session, path: string): Promise<string> => {
    const source = `read_parquet(${literal(path)}, hive_partitioning = false)`
    const described = await session.rows<{ column_name: string; column_type: string }>(
      `DESCRIBE SELECT * FROM ${source}`,
    )
    const found = new Map(described.map((d) => [d.column_name, d.column_type]))
    const list = columns.map((column) => {
      const got = found.get(column.name)
      if (got === undefined || (got === 'DOUBLE' && /^U?HUGEINT$/.test(column.type)))
        throw otherSchema(root, `${column.name} ${column.type}`, `${column.name} ${got ?? 'absent'} in a part`)
      // For other readers JSON is the better text of a nested state.
      if (isNested(column.type))
        return `CAST(to_json(CAST(${ident(column.name)} AS ${column.type})) AS VARCHAR) AS ${ident(column.name)}`
      return got === 'VARCHAR' ? ident(column.name) : storeList([column])
    })
    return `SELECT ${list.join(', ')} FROM ${source}`
  }

  return {
    delta,
    generation,
    mirror: async (pointer) => {
      const before = await delta.snapshot()
      if (before !== null) {
        checkFormat(root, before)
        checkSchema(root, before, columns)
      }
      if ((before?.txns.get(appId) ?? 0) >= pointer.generation) return 'current'
      const mirrored = new Set([...(before?.files.values() ?? [])].map((add) => add.tags?.source))
      const written: WrittenFile[] = []
      for (const part of pointer.files) {
        if (mirrored.has(part.key) || part.rows === 0) continue
        const path = await store.localFile(part.key, part)
        const file = await engine.withSession(async (session) =>
          writeDataFile(store, session, {
            root,
            folder: '',
            name: part.part,
            select: await mirrorSelect(session, path),
            columns,
            partitionValues: {},
            tags: { source: part.key },
            dataChange: true,
            nowMs: context.now(),
          }),
        )
        if (file !== null) written.push(file)
      }
      const wanted = new Set(pointer.files.map((f) => f.key))
      const nowMs = context.now()
      const committed = await delta.commit('WRITE', (snapshot) => {
        // Decided on the very snapshot that the files were compared with: a quicker mirror wins, and we look again.
        if (snapshot?.version !== before?.version) return null
        const gone = [...(snapshot?.files.values() ?? [])].filter((add) => !wanted.has(add.tags?.source ?? ''))
        return [
          ...(snapshot === null ? creation(root, columns, [], {}, nowMs) : []),
          { txn: { appId, version: pointer.generation, lastUpdated: Math.trunc(nowMs) } },
          ...gone.map((add): Action => ({ remove: removalOf(add, nowMs, true) })),
          ...written.map((file): Action => ({ add: file.add })),
        ]
      })
      if (committed !== null) return 'mirrored'
      await discard(store, written)
      return (await generation()) >= pointer.generation ? 'current' : openViewTable(context, view).mirror(pointer)
    },
  }
}
