/** The stages of a lake at which its tables are read, and the damage that must be seen. */
import { cp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Engine } from '../../engine/engine.ts'
import type { ObjectStore } from '../../model/ports/object-store.ts'
import { compare, type Truth, truthOf } from './compare.ts'
import { type Filling, openFilling, type State } from './lake.ts'
import type { Reader } from './reader.ts'

export type Place = {
  name: 'folder' | 's3'
  open(): Promise<ObjectStore>
  /** Where a foreign reader finds a table. */
  address(root: string): { table: string; storage?: Record<string, string> }
  remove(): Promise<void>
  readers: Reader[]
}
export type Report = (ok: boolean, line: string, details?: string[]) => void

type Stage = {
  name: string
  reach(lake: Filling): Promise<void>
  /** Whether a table came to what the stage is about. */
  shows(state: State, before: State): boolean
}

const STAGES: Stage[] = [
  { name: 'entries', reach: (lake) => lake.fill(2), shows: (s) => s.commits > 1 && s.checkpoints === 0 },
  {
    name: 'checkpoint',
    reach: async (lake) => {
      for (let day = 0; day < 3; day++) {
        lake.nextDay()
        await lake.fill(4)
      }
    },
    shows: (s) => s.commits > 10 && s.checkpoints > 0,
  },
  {
    name: 'compacted',
    reach: async (lake) => {
      lake.nextDay()
      await lake.fill(1)
      await lake.compact()
    },
    shows: (s, before) => s.stored > s.live && s.commits > before.commits,
  },
  { name: 'vacuumed', reach: (lake) => lake.vacuum(), shows: (s, before) => s.stored < before.stored },
  {
    name: 'continued',
    reach: async (lake) => {
      lake.nextDay()
      await lake.fill(1)
    },
    shows: (s, before) => s.commits > before.commits,
  },
]

/** Fills the lake stage by stage, and has every reader of the place read each table. */
export const showAll = async (engine: Engine, place: Place, work: string, report: Report): Promise<void> => {
  await mkdir(work, { recursive: true })
  const store = await place.open()
  const lake = await openFilling(engine, store, work)
  const before = new Map<string, State>()
  try {
    for (const stage of STAGES) {
      await stage.reach(lake)
      let rows = 0
      for (const table of lake.tables) {
        const state = await lake.state(table)
        const { commits, checkpoints, live, stored } = state
        const line = `${place.name} ${stage.name}: ${table.root}`
        if (!stage.shows(state, before.get(table.root) ?? state))
          report(false, `${line} did not come to this stage`, [JSON.stringify(state)])
        before.set(table.root, state)
        const truth = await truthOf(engine, store, table)
        try {
          if (/^(events|dead)\//.test(table.root)) rows += truth.count
          const told = `${commits} entries, ${checkpoints} checkpoints, ${live} of ${stored} files live`
          for (const reader of place.readers)
            await check(
              truth,
              reader,
              { ...place.address(table.root), rows: join(work, 'rows') },
              `${line}, ${told}`,
              report,
            )
          if (place.name === 'folder') await more(stage, truth, place, work, report)
        } finally {
          truth.close()
        }
      }
      for (const { view, generation, named, published } of await lake.parts()) {
        const same = published.length > 0 && named.join() === published.join()
        const line = `the table of ${view} names the ${published.length} parts of generation ${generation}`
        report(same, `${place.name} ${stage.name}: ${line}`, same ? [] : [`named: ${named.join(', ')}`])
      }
      const appended = lake.appended()
      const same = rows === appended
      report(same, `${place.name} ${stage.name}: ${rows} events and dead letters, of ${appended} events appended`)
    }
  } finally {
    await lake.close()
  }
}

const check = async (
  truth: Truth,
  reader: Reader,
  at: { table: string; storage?: Record<string, string>; rows: string },
  line: string,
  report: Report,
): Promise<void> => {
  const { differences, aggregates, filters } = await compare(truth, reader, { ...at, rows: `${at.rows}.parquet` })
  await rm(`${at.rows}.parquet`, { recursive: true, force: true })
  const done = `${truth.count} rows, ${aggregates} aggregates, ${filters} filters`
  report(differences.length === 0, `${line}; ${reader.name}: ${done}`, differences.slice(0, 12))
}

/** Copies of a table in a folder: without the entries before its checkpoint, as other engines clean up; and damaged ones. */
const more = async (stage: Stage, truth: Truth, place: Place, work: string, report: Report): Promise<void> => {
  const copy = join(work, 'copy')
  const entries = join(copy, '_delta_log')
  const fresh = async (): Promise<void> => {
    await rm(copy, { recursive: true, force: true })
    await cp(place.address(truth.root).table, copy, { recursive: true })
  }
  const at = { table: copy, rows: join(work, 'rows') }
  if (stage.name === 'checkpoint') {
    await fresh()
    const { version } = JSON.parse(await readFile(join(entries, '_last_checkpoint'), 'utf8')) as { version: number }
    const names = (await readdir(entries)).filter(
      (name) => name.endsWith('.json') && Number.parseInt(name, 10) < version,
    )
    for (const name of names) await rm(join(entries, name))
    const line = `${place.name} ${stage.name}: ${truth.root} without the ${names.length} entries before it`
    for (const reader of place.readers) await check(truth, reader, at, line, report)
  }
  if (stage.name === 'entries' && truth.root.startsWith('events/'))
    for (const [name, damage] of Object.entries(DAMAGES)) {
      await fresh()
      await editAdds(entries, damage)
      for (const reader of place.readers) {
        const { differences } = await compare(truth, reader, { ...at, rows: `${at.rows}.parquet` })
        await rm(`${at.rows}.parquet`, { recursive: true, force: true })
        const seen = differences.length > 0
        report(
          seen,
          `${place.name} damaged: ${name}; ${reader.name}: ${seen ? 'seen' : 'NOT seen'}`,
          differences.slice(0, 1),
        )
      }
    }
  await rm(copy, { recursive: true, force: true })
}

type Add = { path: string; partitionValues: Record<string, string>; stats: string }

/** Each must be seen by every reader, or the comparison shows nothing. Null takes the action away. */
const DAMAGES: Record<string, (add: Add, isLast: boolean) => Add | null> = {
  'an add left out': (add, isLast) => (isLast ? null : add),
  // In the text: parsed and printed, its long numbers would lose digits, and that alone is seen.
  'greatest values too low': (add) => ({
    ...add,
    stats: add.stats.replace(/("maxValues":\{[^}]*"i32":)-?\d+/, '$1-2147483648'),
  }),
  'another date': (add, isLast) => (isLast ? { ...add, partitionValues: { _append_date: '2026-01-01' } } : add),
}

/** Rewrites the add actions of all entries in a folder; one of them is the last. */
const editAdds = async (entries: string, edit: (add: Add, isLast: boolean) => Add | null): Promise<void> => {
  const names = (await readdir(entries)).filter((name) => /^\d{20}\.json$/.test(name)).sort()
  let isLast = true
  for (const name of names.reverse()) {
    const lines: string[] = []
    for (const line of (await readFile(join(entries, name), 'utf8')).trim().split('\n')) {
      const { add } = JSON.parse(line) as { add?: Add }
      if (add === undefined) {
        lines.push(line)
        continue
      }
      const edited = edit(add, isLast)
      isLast = false
      if (edited !== null) lines.push(JSON.stringify({ add: edited }))
    }
    await writeFile(join(entries, name), `${lines.join('\n')}\n`)
  }
}
