/**
 * Drift: how many cells the last comparison of each kind found to differ, per view. It must be 0.
 * Invariant: a number stands until the same kind of comparison of the same view runs again.
 */
export type Drift = {
  note(view: string, kind: string, differing: number): void
  /** Sum over the kinds; null: nothing was compared yet. */
  of(view: string): number | null
  /** For metrics: view, kind, cells. */
  all(): { view: string; kind: string; differing: number }[]
}

export const openDrift = (): Drift => {
  const known = new Map<string, { view: string; kind: string; differing: number }>()
  return {
    note: (view, kind, differing) => void known.set(`${view}/${kind}`, { view, kind, differing }),
    of: (view) => {
      const own = [...known.values()].filter((d) => d.view === view)
      return own.length === 0 ? null : own.reduce((sum, d) => sum + d.differing, 0)
    },
    all: () => [...known.values()],
  }
}
