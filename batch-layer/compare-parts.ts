/**
 * Comparing two lists of parts of a view, a bounded number of cells at a time. Invariant: every part of both lists is compared; files
 * with equal digests hold equal cells and are not read.
 */
import type { View } from '../model/view.ts'
import { type Comparison, compareCells } from './compare.ts'
import { type BatchContext, checkSignal } from './context.ts'
import { cellsOf, type Parts } from './parts.ts'

const CELLS_AT_A_TIME = 500_000

export const compareParts = (
  ctx: BatchContext,
  view: View,
  left: Parts,
  right: Parts,
  signal?: AbortSignal,
): Promise<Comparison> =>
  ctx.engine.withSession(async (session) => {
    const store = ctx.lake.store
    const of = (parts: Parts, names: string[]) => parts.files.filter((f) => names.includes(f.part))
    const out: Comparison = { differing: 0, cells: [] }
    const compare = async (names: string[] | null): Promise<void> => {
      checkSignal(signal)
      const [a, b] = [names ? of(left, names) : left.files, names ? of(right, names) : right.files]
      const found = await compareCells(session, view, await cellsOf(store, view, a), await cellsOf(store, view, b))
      out.differing += found.differing
      out.cells = [...out.cells, ...found.cells].slice(0, 20)
    }
    // Other slots: a cell may lie in parts of different names.
    if (left.slots !== right.slots) {
      await compare(null)
      return out
    }
    const names = [...new Set([...left.files, ...right.files].map((f) => f.part))].sort()
    let group: string[] = []
    let cells = 0
    for (const name of names) {
      const [a, b] = [of(left, [name]), of(right, [name])]
      if (a.length === 1 && b.length === 1 && a[0]!.sha256 === b[0]!.sha256) continue
      const size = [...a, ...b].reduce((n, f) => n + f.rows, 0)
      if (group.length > 0 && cells + size > CELLS_AT_A_TIME) {
        await compare(group)
        group = []
        cells = 0
      }
      group.push(name)
      cells += size
    }
    if (group.length > 0) await compare(group)
    return out
  })
