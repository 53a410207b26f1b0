/**
 * What the checker hands around: an expression that was checked, and the scope that gives names their meaning.
 * Invariant: `tree` evaluates without an error on every row unless `partial` says why it may not.
 */
import { castNode, type Node, type Source } from './tree.ts'
import { castBounds, type ValueType } from './value-type.ts'

export type Checked = {
  tree: Node
  type: ValueType
  /** Why it may throw; undefined: it cannot. */
  partial?: { why: string; node: Node }
  /** No columns in it. */
  constant: boolean
}

export type Scope = {
  source: Source
  /** What a name means here; must refuse what it does not know. */
  column: (names: string[], node: Node) => Checked
  /** Aggregates and other functions that only this scope knows; null: an ordinary function. */
  call?: (name: string, node: Node) => Checked | null
  /** Collects constant expressions that the engine must evaluate once, at compile time. */
  constants: Node[]
}

/** Casts where the type differs; the caller has made sure that the cast is total. */
export const castTo = (c: Checked, type: ValueType): Checked =>
  c.type.sql === type.sql ? c : { ...c, tree: castNode(c.tree, type.sql), type: castBounds(c.type, type) }
