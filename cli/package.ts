/** Where the installed package lies, and its version. Works from the sources and from `dist/` alike. */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const find = (): string => {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    if (existsSync(join(folder, 'package.json')) && existsSync(join(folder, 'examples'))) return folder
    if (folder === dirname(folder)) throw new Error('the package of weir is not whole: package.json is missing')
  }
}

export const packageRoot = find()
export const examplesFolder = join(packageRoot, 'examples')
export const packageVersion: string = (
  JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string }
).version
