/**
 * Prints many trees with one call of the engine's printer.
 * Invariant: the separator between two items occurs in no item, since it occurs nowhere in the trees' text.
 */
import type { SqlTools } from '../view.ts'
import { type Node, statementOf, textNode, writeTree } from './tree.ts'

/** A word that is not part of the text; plain letters and digits, so that JSON and SQL write it as it is. */
export const wordOutside = (text: string, stem: string): string => {
  let n = 0
  while (text.includes(`${stem}${n}x`)) n++
  return `${stem}${n}x`
}

/** SQL of each tree, in order. */
export const printAll = async (trees: Node[], tools: SqlTools): Promise<string[]> => {
  if (trees.length === 0) return []
  const bare = trees.map((t) => ({ ...t, alias: '' }))
  const word = wordOutside(writeTree(bare), 'weirsplit')
  const printed = await tools.print(statementOf([textNode(word), ...bare.flatMap((t) => [t, textNode(word)])]))
  // SELECT 'w', a, 'w', b, 'w'
  const parts = printed.split(`'${word}'`).slice(1, -1)
  return parts.map((p) => p.replace(/^, /, '').replace(/, $/, ''))
}
