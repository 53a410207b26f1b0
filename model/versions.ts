/**
 * Compiled versions of the project's views: what is registered, fed, serving.
 * Invariant: a version is compiled from its registered SQL and used only if it compiles to the very hash it was registered
 * under; a definition of another release (other SEMANTICS) is listed as foreign and neither fed nor served.
 */
import { compileView } from './compile/compile.ts'
import type { Dataset } from './dataset.ts'
import { WeirError } from './errors.ts'
import type { Publications } from './ports/publications.ts'
import type { SqlTools, View } from './view.ts'

export type VersionState = 'active' | 'kept' | 'building' | 'dropped' | 'foreign'
export type VersionInfo = { view: string; version: string; state: VersionState; compiled: View | null }

export type Versions = {
  /** Reads registrations, pointers and active versions anew; compiles what it has not seen. */
  refresh(): Promise<void>
  all(): VersionInfo[]
  /** What the speed layer keeps for a dataset: versions that are active, or not dropped and published. */
  fed(dataset: string): View[]
  /** The version that serves a view; null when the view is unknown or has none yet. */
  active(view: string): View | null
  /** A version by name, dropped ones left out. */
  find(view: string, version: string): View | null
}

export const openVersions = (publications: Publications, datasets: Dataset[], tools: SqlTools): Versions => {
  const compiled = new Map<string, View | null>()
  let list: VersionInfo[] = []
  let refreshing: Promise<void> | undefined

  const compile = async (name: string, version: string, sql: string): Promise<View | null> => {
    const key = `${name}/${version}`
    const known = compiled.get(key)
    if (known !== undefined) return known
    let found: View | null = null
    for (const dataset of datasets) {
      try {
        const view = await compileView({ name, sql, dataset }, tools)
        if (view.version === version) found = view
      } catch (error) {
        // The FROM of the SQL names another dataset, or a column is gone: foreign.
        if (!(error instanceof WeirError)) throw error
      }
    }
    compiled.set(key, found)
    return found
  }

  const read = async (): Promise<void> => {
    const next: VersionInfo[] = []
    for (const { view, version, sql, dropped } of await publications.versions()) {
      if (dropped) {
        next.push({ view, version, state: 'dropped', compiled: null })
        continue
      }
      const own = await compile(view, version, sql)
      const isActive = (await publications.active(view))?.version === version
      const published = isActive || (await publications.current(view, version)) !== null
      const state = own === null ? 'foreign' : isActive ? 'active' : published ? 'kept' : 'building'
      next.push({ view, version, state, compiled: own })
    }
    list = next
  }

  return {
    refresh: () => {
      refreshing ??= read().finally(() => {
        refreshing = undefined
      })
      return refreshing
    },
    all: () => list,
    fed: (dataset) =>
      list.flatMap((v) =>
        v.compiled?.dataset === dataset && (v.state === 'active' || v.state === 'kept') ? [v.compiled] : [],
      ),
    active: (view) => list.find((v) => v.view === view && v.state === 'active')?.compiled ?? null,
    find: (view, version) =>
      list.find((v) => v.view === view && v.version === version && v.state !== 'dropped')?.compiled ?? null,
  }
}
