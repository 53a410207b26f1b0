/** What is wrong with a query: errors that the serving room answers with 400. */
import { WeirError } from '../errors.ts'
import { nearest } from '../project-yaml.ts'

export type QueryProblem =
  | 'NAME'
  | 'TIME'
  | 'GRAIN'
  | 'ZONE'
  | 'FILTER'
  | 'VALUE'
  | 'ORDER'
  | 'LIMIT'
  | 'WINDOW'
  | 'FILL'
  | 'COMPARE'
  | 'WHERE'
  | 'FORCED'

export const badQuery = (
  what: QueryProblem,
  message: string,
  more: { expected?: string; got?: string; next?: string } = {},
): WeirError =>
  new WeirError({ code: `WEIR_MODEL_QUERY_${what}`, message, ...more, next: more.next ?? 'correct the query' })

/** True for errors that a query itself is to blame for. */
export const isQueryError = (error: unknown): boolean =>
  error instanceof WeirError && (error.code.startsWith('WEIR_MODEL_QUERY_') || error.code === 'WEIR_MODEL_BAD_TOKEN')

/** Checks that a name is one of the known; the error names the nearest. */
export const knownName = (kind: string, name: string, known: string[]): string => {
  if (known.includes(name)) return name
  const near = nearest(name, known)
  throw badQuery('NAME', `There is no ${kind} ${JSON.stringify(name)}.`, {
    expected: known.length === 0 ? `no ${kind}: the view has none` : `one of ${known.join(', ')}`,
    got: name,
    next: near === null ? `name one that the view has` : `did you mean ${near}?`,
  })
}

export const distinctNames = (kind: string, names: string[]): string[] => {
  const twice = names.find((n, i) => names.indexOf(n) !== i)
  if (twice !== undefined)
    throw badQuery('NAME', `The ${kind} ${JSON.stringify(twice)} is named twice.`, { next: 'name it once' })
  return names
}
