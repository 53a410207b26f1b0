// Fails when an installed package excludes the oldest Node that Weir promises (package.json, engines).
import { readFileSync } from 'node:fs'

const lock = JSON.parse(readFileSync(new URL('../package-lock.json', import.meta.url), 'utf8'))
const oldest = [20, 19, 0]
const compare = (a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]
const parse = (text) => {
  const [a = 0, b = 0, c = 0] = text.split('.').map((n) => Number.parseInt(n, 10) || 0)
  return [a, b, c]
}
// The operators that occur in engines fields: >=, >, ^, ~, <, <=, bare and x-ranges, joined by spaces and ||.
const fits = (term) => {
  const found = /^(>=|<=|>|<|\^|~|=)?\s*v?(\d+(?:\.\d+)?(?:\.\d+)?)(?:\.x)?$/.exec(term)
  if (!found) return term === '*' || term === 'x'
  const [, op = '', version] = found
  const at = parse(version)
  const order = compare(oldest, at)
  if (op === '>=') return order >= 0
  if (op === '>') return order > 0
  if (op === '<=') return order <= 0
  if (op === '<') return order < 0
  if (op === '^') return order >= 0 && oldest[0] === at[0]
  if (op === '~') return order >= 0 && oldest[0] === at[0] && oldest[1] === at[1]
  return version.split('.').every((part, i) => Number(part) === oldest[i])
}
const accepts = (range) =>
  range.split('||').some((part) =>
    part
      .trim()
      .replace(/(>=|<=|>|<|\^|~)\s+/g, '$1')
      .split(/\s+/)
      .every(fits),
  )

const wrong = Object.entries(lock.packages).filter(
  ([path, p]) => path !== '' && p.engines?.node && !p.optional && !accepts(p.engines.node),
)
for (const [path, p] of wrong) console.error(`${path} ${p.version} wants node ${p.engines.node}`)
if (wrong.length > 0) process.exit(1)
