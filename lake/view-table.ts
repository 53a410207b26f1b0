/**
 * `views/<view>/<version>`: the mirror of a published generation as a Delta table, for readers that know no Weir. The parts of a
 * generation lie in the table's own folder, so that a commit only has to name them.
 * Invariant: the pointer is the truth and the mirror follows it: one commit per generation, named by its txn, never backwards; a
 * mirror left behind by a crash is brought up by the next call.
 */
import type { Session } from '../engine/engine.ts'
import { cellColumns } from '../model/cells.ts'
import { ident, literal } from '../model/ident.ts'
import type { PartFile, Pointer } from '../model/ports/publications.ts'
import type { View } from '../model/view.ts'
import { discard, otherSchema, removalOf, type WrittenFile, writeDataFile } from './data-file.ts'
import { type Action, type AddFile, encodePath } from './delta-actions.ts'
import { isNested, storeList } from './delta-schema.ts'
import { type DeltaContext, type DeltaTable, openDeltaTable } from './delta-table.ts'
import { checkFormat, checkSchema, creation } from './events-table.ts'

export type ViewTable = {
  delta: DeltaTable
  /** Generation that the mirror shows; 0 before the first. */
  generation(): Promise<number>
  /**
   * Brings the mirror to the pointer's generation; 'current' when it is there already or beyond. `stats`: Delta's statistics of parts
   * by key, where the caller has them; a part without gets its number of rows alone.
   */
  mirror(pointer: Pointer, stats?: ReadonlyMap<string, string>): Promise<'mirrored' | 'current'>
}

/** Folder of the table, where the parts lie too. */
export const viewRoot = (view: { name: string; version: string }): string => `views/${view.name}/${view.version}`

export const openViewTable = (context: DeltaContext, view: View): ViewTable => {
  const { store, engine } = context
  const root = viewRoot(view)
  const delta = openDeltaTable(context, root)
  const columns = cellColumns(view)
  const appId = `publish/${view.name}/${view.version}`

  const generation = async (): Promise<number> => (await delta.snapshot())?.txns.get(appId) ?? 0

  /** Parts of an older release lie in a folder of their own, out of reach of the table's relative paths: they are copied. */
  const copied = (part: PartFile, nowMs: number): Promise<WrittenFile | null> =>
    store.localFile(part.key, part).then((path) =>
      engine.withSession(async (session) =>
        writeDataFile(store, session, {
          root,
          folder: '',
          name: part.part,
          select: await mirrorSelect(session, path),
          columns,
          partitionValues: {},
          tags: { source: part.key },
          dataChange: true,
          nowMs,
        }),
      ),
    )

  const named = (part: PartFile, stats: string | undefined, nowMs: number): AddFile => ({
    path: encodePath(part.key.slice(root.length + 1)),
    partitionValues: {},
    size: part.size,
    modificationTime: Math.trunc(nowMs),
    dataChange: true,
    stats: stats ?? `{"numRecords":${part.rows}}`,
    tags: { sha256: part.sha256, source: part.key },
  })

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
      // The stored text of an older release's state may be of any kind: JSON is readable, and nothing casts it back.
      if (isNested(column.type))
        return `CAST(to_json(CAST(${ident(column.name)} AS ${column.type})) AS VARCHAR) AS ${ident(column.name)}`
      return got === 'VARCHAR' ? ident(column.name) : storeList([column])
    })
    return `SELECT ${list.join(', ')} FROM ${source}`
  }

  return {
    delta,
    generation,
    mirror: async (pointer, stats = new Map()) => {
      const before = await delta.snapshot()
      if (before !== null) {
        checkFormat(root, before)
        checkSchema(root, before, columns)
      }
      if ((before?.txns.get(appId) ?? 0) >= pointer.generation) return 'current'
      const mirrored = new Set([...(before?.files.values() ?? [])].map((add) => add.tags?.source))
      const nowMs = context.now()
      const written: WrittenFile[] = []
      const adds: AddFile[] = []
      for (const part of pointer.files) {
        if (mirrored.has(part.key) || part.rows === 0) continue
        if (part.key.startsWith(`${root}/`)) {
          adds.push(named(part, stats.get(part.key), nowMs))
          continue
        }
        const file = await copied(part, nowMs)
        if (file === null) continue
        written.push(file)
        adds.push(file.add)
      }
      const wanted = new Set(pointer.files.map((f) => f.key))
      const committed = await delta.commit('WRITE', (snapshot) => {
        // Decided on the very snapshot that the files were compared with: a quicker mirror wins, and we look again.
        if (snapshot?.version !== before?.version) return null
        const gone = [...(snapshot?.files.values() ?? [])].filter((add) => !wanted.has(add.tags?.source ?? ''))
        return [
          ...(snapshot === null ? creation(root, columns, [], {}, nowMs) : []),
          { txn: { appId, version: pointer.generation, lastUpdated: Math.trunc(nowMs) } },
          ...gone.map((add): Action => ({ remove: removalOf(add, nowMs, true) })),
          ...adds.map((add): Action => ({ add })),
        ]
      })
      if (committed !== null) return 'mirrored'
      await discard(store, written)
      return (await generation()) >= pointer.generation
        ? 'current'
        : openViewTable(context, view).mirror(pointer, stats)
    },
  }
}
