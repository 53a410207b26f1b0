/**
 * Reads one YAML file of a project against a schema. Invariant: every complaint names file and line, what was
 * expected, what came, and for a misspelt key the nearest known one.
 */
import type { Static, TSchema } from 'typebox'
import Value from 'typebox/value'
import { LineCounter, parseDocument } from 'yaml'
import { WeirError } from './errors.ts'

/** All that is wrong with a project, in one error. */
export class ProjectErrors extends WeirError {
  readonly errors: WeirError[]
  constructor(errors: WeirError[]) {
    super({
      code: 'WEIR_MODEL_PROJECT',
      message: errors.length === 1 ? errors[0]!.message : `The project has ${errors.length} errors.`,
      next: 'correct them and run `weir check`',
      file: errors[0]?.file,
      line: errors[0]?.line,
      cause: errors[0],
    })
    this.errors = errors
  }
}

/** Optimal string alignment distance; small inputs only. */
const distance = (a: string, b: string): number => {
  let before: number[] = []
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1]
      let best = Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (same ? 0 : 1))
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) best = Math.min(best, before[j - 2]! + 1)
      next.push(best)
    }
    before = row
    row = next
  }
  return row[b.length]!
}

/** The known name nearest to a misspelt one, or null when none is near. */
export const nearest = (word: string, known: string[]): string | null => {
  let best: string | null = null
  let least = Math.max(1, Math.floor(word.length / 3)) + 1
  for (const name of known) {
    const d = distance(word.toLowerCase(), name.toLowerCase())
    if (d < least) {
      least = d
      best = name
    }
  }
  return best
}

const show = (value: unknown): string => {
  if (value === undefined) return 'nothing'
  const text = JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? v.toString() : v)) ?? String(value)
  return text.length > 80 ? `${text.slice(0, 77)}…` : text
}

export type YamlFile = {
  path: string
  value: unknown
  /** 1-based line of the key or value at a path; the nearest parent's when it is absent. */
  lineOf(path: (string | number)[]): number
}

/** Parses YAML text; syntax errors become `WEIR_MODEL_YAML`. An empty file is an empty mapping. */
export const readYaml = (path: string, text: string): YamlFile => {
  const lines = new LineCounter()
  const doc = parseDocument(text, { lineCounter: lines, uniqueKeys: true, intAsBigInt: false })
  const bad = doc.errors[0]
  if (bad) {
    throw new WeirError({
      code: 'WEIR_MODEL_YAML',
      message: `The file is not YAML: ${bad.message.split('\n')[0]}`,
      expected: 'YAML 1.2 with unique keys',
      next: 'correct the named line',
      file: path,
      line: lines.linePos(bad.pos[0]).line,
    })
  }
  const lineOf = (keys: (string | number)[]): number => {
    for (let n = keys.length; n > 0; n--) {
      const parent = n === 1 ? doc.contents : doc.getIn(keys.slice(0, n - 1), true)
      const last = keys[n - 1]
      const items = (parent as { items?: { key?: { value?: unknown; range?: number[] } }[] } | null)?.items
      const pair = items?.find((i) => String(i?.key?.value) === String(last))
      if (pair?.key?.range) return lines.linePos(pair.key.range[0]!).line
      const node = doc.getIn(keys.slice(0, n), true) as { range?: number[] } | undefined
      if (node?.range) return lines.linePos(node.range[0]!).line
    }
    return 1
  }
  return { path, value: doc.toJS() ?? {}, lineOf }
}

const at = (value: unknown, path: string[]): unknown =>
  path.reduce<unknown>((v, key) => (typeof v === 'object' && v !== null ? Reflect.get(v, key) : undefined), value)

const schemaAt = (schema: TSchema, path: string[]): TSchema | undefined =>
  path.reduce<TSchema | undefined>((s, key) => {
    const known = (s as { properties?: Record<string, TSchema> } | undefined)?.properties
    return known && Object.hasOwn(known, key) ? known[key] : undefined
  }, schema)

const describe = (schema: TSchema | undefined, message: string): string => {
  const s = schema as { description?: string; type?: string; pattern?: string; examples?: unknown[] } | undefined
  const example = s?.examples?.[0] === undefined ? '' : `, for example ${show(s.examples[0])}`
  return `${s?.description ?? message}${example}`
}

/** Checks a value against a schema, with defaults filled in. `base` is where in the file the value stands. */
export const checkYaml = <S extends TSchema>(
  file: YamlFile,
  schema: S,
  value: unknown = file.value,
  base: (string | number)[] = [],
): { value: Static<S>; errors: WeirError[] } => {
  const filled = Value.Default(schema, structuredClone(value ?? {}))
  const errors: WeirError[] = []
  const seen = new Set<string>()
  for (const issue of Value.Errors(schema, filled)) {
    const path = issue.instancePath
      .split('/')
      .slice(1)
      .map((p) => p.replaceAll('~1', '/').replaceAll('~0', '~'))
    const unknownKey = issue.keyword === 'boolean' && issue.schemaPath.endsWith('additionalProperties')
    if (issue.keyword === 'additionalProperties') continue
    const missing =
      issue.keyword === 'required' ? (issue.params as { requiredProperties?: string[] }).requiredProperties : undefined
    const where = missing ? [...path, missing[0]!] : path
    const name = [...base, ...where].join('.')
    if (seen.has(name)) continue
    seen.add(name)
    if (unknownKey) {
      const parent = schemaAt(schema, path.slice(0, -1)) as { properties?: Record<string, TSchema> } | undefined
      const known = Object.keys(parent?.properties ?? {})
      const near = nearest(path.at(-1)!, known)
      errors.push(
        new WeirError({
          code: 'WEIR_MODEL_UNKNOWN_KEY',
          message: `Unknown key ${name}.`,
          expected: `one of ${known.join(', ')}`,
          got: path.at(-1)!,
          next: near ? `did you mean ${near}?` : 'remove it',
          file: file.path,
          line: file.lineOf([...base, ...path]),
        }),
      )
      continue
    }
    errors.push(
      new WeirError({
        code: missing ? 'WEIR_MODEL_MISSING_KEY' : 'WEIR_MODEL_BAD_VALUE',
        message: missing ? `${name} is missing.` : `${name || 'The file'} ${issue.message}.`,
        expected: describe(schemaAt(schema, where), issue.message),
        got: show(at(filled, where)),
        next: missing ? `add ${where.at(-1)}` : 'correct the value',
        file: file.path,
        line: file.lineOf([...base, ...path]),
      }),
    )
  }
  return { value: filled as Static<S>, errors }
}
