/** `datasets/*.yaml` → `Dataset`. Invariant: what comes out is complete and consistent; defaults are written in. */
import Type from 'typebox'
import type { Column, Dataset } from './dataset.ts'
import { canonicalColumnType } from './decode/column-types.ts'
import { parseDuration } from './durations.ts'
import { WeirError } from './errors.ts'
import { checkYaml, nearest, readYaml } from './project-yaml.ts'

const NAME = /^[A-Za-z][A-Za-z0-9_]{0,62}$/
const NAME_RULE = 'a letter, then letters, digits or _, at most 63'

const DatasetSchema = Type.Object(
  {
    dataset: Type.Optional(Type.String({ description: 'the name of the dataset' })),
    description: Type.Optional(Type.String()),
    eventTime: Type.String({ description: 'the column with the event time', examples: ['ts'] }),
    eventTimeRange: Type.Optional(
      Type.Object(
        {
          from: Type.String({ description: 'an ISO-8601 time' }),
          to: Type.String({ description: 'an ISO-8601 time' }),
        },
        { additionalProperties: false },
      ),
    ),
    id: Type.Optional(Type.String({ description: 'the column that identifies an event' })),
    dedupe: Type.Optional(
      Type.Object(
        { window: Type.String({ description: 'a length of time', examples: ['1 hour'] }) },
        { additionalProperties: false },
      ),
    ),
    key: Type.Optional(Type.String({ description: 'the column that chooses the partition' })),
    partitions: Type.Optional(Type.Integer({ minimum: 1, maximum: 64, description: 'a whole number from 1 to 64' })),
    columns: Type.Record(Type.String(), Type.Unknown(), { description: 'column names and types', minProperties: 1 }),
    extra: Type.Union([Type.Literal('keep'), Type.Literal('reject')], {
      default: 'keep',
      description: 'keep or reject',
    }),
  },
  { additionalProperties: false },
)

const ColumnSchema = Type.Object(
  {
    type: Type.String({ description: 'a type', examples: ['DECIMAL(18,2)'] }),
    unit: Type.Optional(
      Type.Union([Type.Literal('s'), Type.Literal('ms'), Type.Literal('us')], { description: 's, ms or us' }),
    ),
    required: Type.Boolean({ default: false, description: 'true or false' }),
    description: Type.Optional(Type.String()),
  },
  { additionalProperties: false },
)

const DAY_US = 86_400_000_000n
const DEFAULT_RANGE = { from: 0n, to: BigInt(Date.UTC(2200, 0, 1)) * 1_000n }

const timeUs = (text: string): bigint | null => {
  const ms = Date.parse(/^\d{4}-\d{2}-\d{2}$/.test(text) ? `${text}T00:00:00Z` : text)
  return Number.isFinite(ms) ? BigInt(ms) * 1_000n : null
}

const TYPE_NAMES =
  'VARCHAR, BOOLEAN, TINYINT, SMALLINT, INTEGER, BIGINT, UTINYINT, USMALLINT, UINTEGER, DOUBLE, DECIMAL(p,s), DATE, TIMESTAMPTZ, UUID or JSON'

/** The dataset in a file, or everything that is wrong with it. `partitions` is the project's default. */
export const parseDataset = (
  path: string,
  text: string,
  partitions: number,
): { dataset: Dataset | null; errors: WeirError[] } => {
  const file = readYaml(path, text)
  const stem = path.replace(/^.*\//, '').replace(/\.ya?ml$/, '')
  const { value, errors } = checkYaml(file, DatasetSchema)
  const fail = (
    keys: string[],
    message: string,
    more: { expected?: string; got?: string; next?: string; code?: string },
  ): void => {
    errors.push(
      new WeirError({
        code: more.code ?? 'WEIR_MODEL_DATASET',
        message,
        expected: more.expected,
        got: more.got,
        next: more.next ?? 'correct the definition',
        file: path,
        line: file.lineOf(keys),
      }),
    )
  }
  if (errors.length > 0) return { dataset: null, errors }

  const name = value.dataset ?? stem
  if (!NAME.test(name)) fail(['dataset'], `${name} cannot name a dataset.`, { expected: NAME_RULE, got: name })
  const columns: Column[] = []
  const lower = new Map<string, string>()
  for (const [column, spec] of Object.entries(value.columns)) {
    const keys = ['columns', column]
    if (!NAME.test(column)) fail(keys, `${column} cannot name a column.`, { expected: NAME_RULE, got: column })
    const twin = lower.get(column.toLowerCase())
    if (twin !== undefined) fail(keys, `Columns ${twin} and ${column} differ only by case.`, { next: 'rename one' })
    lower.set(column.toLowerCase(), column)
    const checked = checkYaml(file, ColumnSchema, typeof spec === 'string' ? { type: spec } : spec, keys)
    errors.push(...checked.errors)
    if (checked.errors.length > 0) continue
    const type = canonicalColumnType(checked.value.type)
    if (type === null) {
      const base = checked.value.type.toUpperCase()
      const near = nearest(base, TYPE_NAMES.split(/, | or /))
      fail(keys, `Column ${column} has a type that events cannot have.`, {
        expected: TYPE_NAMES,
        got: checked.value.type,
        next: near ? `did you mean ${near}?` : 'choose one of these types',
      })
      continue
    }
    if (checked.value.unit !== undefined && type !== 'TIMESTAMPTZ')
      fail([...keys, 'unit'], `Only a TIMESTAMPTZ has a unit.`, { got: `${type} with unit ${checked.value.unit}` })
    columns.push({ name: column, ...checked.value, type })
  }
  const known = columns.map((c) => c.name)
  const column = (role: 'eventTime' | 'id' | 'key'): Column | undefined => {
    const wanted = value[role]
    if (wanted === undefined) return undefined
    const found = columns.find((c) => c.name === wanted)
    if (!found && errors.length === 0) {
      const near = nearest(wanted, known)
      fail([role], `${role} names a column that is not declared.`, {
        expected: `one of ${known.join(', ')}`,
        got: wanted,
        next: near ? `did you mean ${near}?` : 'declare it under columns',
      })
    }
    return found
  }
  const time = column('eventTime')
  if (time && time.type !== 'TIMESTAMPTZ')
    fail(['eventTime'], `The event time must be a TIMESTAMPTZ.`, {
      got: `${time.name} ${time.type}`,
      next: `declare ${time.name} as TIMESTAMPTZ, with unit: ms if events carry epoch numbers`,
    })
  column('id')
  column('key')
  let range = DEFAULT_RANGE
  if (value.eventTimeRange) {
    const from = timeUs(value.eventTimeRange.from)
    const to = timeUs(value.eventTimeRange.to)
    if (from === null || to === null || from >= to)
      fail(['eventTimeRange'], 'The range of event times is empty or unreadable.', {
        expected: 'ISO-8601 times with from before to',
        got: `${value.eventTimeRange.from} … ${value.eventTimeRange.to}`,
      })
    else if (from < -719_162n * DAY_US || to > 2_932_897n * DAY_US)
      fail(['eventTimeRange'], 'The range of event times leaves the calendar.', { expected: 'years 0001 to 9999' })
    else range = { from, to }
  }
  let dedupeWindowMs: number | undefined
  if (value.dedupe) {
    const ms = parseDuration(value.dedupe.window)
    if (ms === null || ms <= 0)
      fail(['dedupe', 'window'], 'The de-duplication window is not a length of time.', {
        expected: 'a number and a unit, for example 1 hour',
        got: value.dedupe.window,
      })
    else if (value.id === undefined)
      fail(['dedupe'], 'De-duplication needs an id.', { next: 'name the identifying column with id:' })
    else dedupeWindowMs = ms
  }
  if (errors.length > 0) return { dataset: null, errors }
  return {
    dataset: {
      name,
      columns,
      eventTime: value.eventTime,
      eventTimeRangeUs: range,
      ...(value.id === undefined ? {} : { id: value.id }),
      ...(dedupeWindowMs === undefined ? {} : { dedupeWindowMs }),
      ...(value.key === undefined ? {} : { key: value.key }),
      extra: value.extra,
      partitions: value.partitions ?? partitions,
      file: path,
    },
    errors,
  }
}
