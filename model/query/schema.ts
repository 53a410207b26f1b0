/**
 * The body of POST /v1/query as a schema. Invariant: it says no less than `resolveQuery` checks of shapes; what a value may
 * be depends on the view and is checked there.
 */
import Type from 'typebox'
import { nearest } from '../project-yaml.ts'
import { badQuery } from './errors.ts'
import { FILTER_OPS } from './filter.ts'

const Name = Type.String({ minLength: 1, maxLength: 256 })
const Text = Type.String({ maxLength: 256 })

export const QuerySchema = Type.Object(
  {
    view: Type.String({ minLength: 1, maxLength: 128, description: 'view to ask' }),
    measures: Type.Optional(Type.Array(Name, { maxItems: 1_000, description: 'default: all of the view' })),
    dimensions: Type.Optional(Type.Array(Name, { maxItems: 1_000, description: 'default: all of the view' })),
    filters: Type.Optional(
      Type.Array(Type.Object({}, { additionalProperties: true }), {
        maxItems: 500,
        description: `on dimensions, a list is AND: { column, op, value } with op one of ${FILTER_OPS.join(' ')}; { or: [ … ] }, { and: [ … ] } and { not: … } nest; NULL as in SQL`,
      }),
    ),
    timeRange: Type.Optional(
      Type.Union([
        Type.Object(
          { last: Type.String({ maxLength: 64, description: 'up to now, outward to whole buckets: "24 hours"' }) },
          { additionalProperties: false },
        ),
        Type.Object(
          {
            from: Type.Optional(Type.String({ maxLength: 64, description: 'first bucket start, RFC 3339' })),
            to: Type.Optional(Type.String({ maxLength: 64, description: 'end, exclusive' })),
          },
          { additionalProperties: false },
        ),
      ]),
    ),
    grain: Type.Optional(
      Type.String({ maxLength: 64, description: '"<n> second|minute|hour|day|week|month|quarter|year", or "all"' }),
    ),
    timeZone: Type.Optional(Type.String({ maxLength: 64, description: 'IANA zone of the buckets; default UTC' })),
    window: Type.Optional(Type.String({ maxLength: 64, description: 'hopping windows of this width' })),
    every: Type.Optional(Type.String({ maxLength: 64, description: 'distance of their starts; default: the grain' })),
    orderBy: Type.Optional(
      Type.Array(Type.Object({ column: Text, desc: Type.Optional(Type.Boolean()) }, { additionalProperties: false }), {
        maxItems: 100,
      }),
    ),
    limit: Type.Optional(Type.Integer({ description: 'rows; default 1,000' })),
    fill: Type.Optional(Type.Boolean({ description: 'rows for empty buckets, too' })),
    compareTo: Type.Optional(Type.Literal('previous', { description: 'adds <measure>_previous' })),
    atLeast: Type.Optional(Type.String({ maxLength: 16_384, description: 'token of an ingest answer' })),
    waitMs: Type.Optional(Type.Integer({ minimum: 0, maximum: 600_000, description: 'how long to wait for atLeast' })),
  },
  { additionalProperties: false },
)

/** A misspelt key is answered with the nearest one, before the schema only says that it is too much. */
export const checkQueryKeys = (body: unknown): void => {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) return
  const known = Object.keys(QuerySchema.properties)
  const strange = Object.keys(body).find((key) => !known.includes(key))
  if (strange === undefined) return
  const near = nearest(strange.slice(0, 64), known)
  throw badQuery('NAME', `A query has no ${JSON.stringify(strange.slice(0, 64))}.`, {
    expected: `keys: ${known.join(', ')}`,
    got: strange.slice(0, 64),
    next: near === null ? 'leave it out' : `did you mean ${near}?`,
  })
}
