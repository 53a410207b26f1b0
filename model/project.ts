/**
 * A project: `weir.yaml`, `datasets/*.yaml`, `views/*.sql`. Invariant: a `Project` is whole; when anything in the
 * folder is wrong there is none, but one error that holds all of them.
 */
import { compileView } from './compile/compile.ts'
import type { Dataset } from './dataset.ts'
import { WeirError } from './errors.ts'
import { parseDataset } from './project-dataset.ts'
import { nearest, ProjectErrors } from './project-yaml.ts'
import { parseSettings, type Settings } from './settings.ts'
import type { SqlTools, View } from './view.ts'

export { ProjectErrors } from './project-yaml.ts'

export type ProjectFile = { path: string; text: string }
export type Project = { settings: Settings; datasets: Dataset[]; views: View[] }

const VIEW_NAME = /^[A-Za-z][A-Za-z0-9_]{0,62}$/

const asErrors = (error: unknown, file: string): WeirError[] => {
  if (error instanceof ProjectErrors) return error.errors
  if (!(error instanceof WeirError)) throw error
  if (error.file !== undefined) return [error]
  const { code, message, expected, got, next, line, cause } = error
  return [new WeirError({ code, message, expected, got, next, line, cause, file })]
}

/** Name after FROM, from the engine's own tree; null when it is not one plain table. */
const fromName = (tree: string): string | null => {
  const parsed = JSON.parse(tree) as {
    statements?: { node?: { from_table?: { type?: string; table_name?: string } } }[]
  }
  const table = parsed.statements?.[0]?.node?.from_table
  return table?.type === 'BASE_TABLE' && table.table_name ? table.table_name : null
}

/**
 * Files (paths relative to the project folder, with `/`) → project.
 * Throws `ProjectErrors` that holds every error found, each with file and line.
 */
export const parseProject = async (
  files: ProjectFile[],
  tools: SqlTools,
  env: Record<string, string | undefined> = {},
): Promise<Project> => {
  const errors: WeirError[] = []
  const sorted = [...files].sort((a, b) => (a.path < b.path ? -1 : 1))
  let settings = parseSettings('', {})
  const main = sorted.find((f) => f.path === 'weir.yaml')
  try {
    settings = parseSettings(main?.text ?? '', env)
  } catch (error) {
    errors.push(...asErrors(error, 'weir.yaml'))
  }

  const datasets: Dataset[] = []
  for (const file of sorted.filter((f) => /^datasets\/[^/]+\.ya?ml$/.test(f.path))) {
    try {
      const found = parseDataset(file.path, file.text, settings.log.partitions)
      errors.push(...found.errors)
      const twin = datasets.find((d) => d.name.toLowerCase() === found.dataset?.name.toLowerCase())
      if (twin)
        errors.push(
          new WeirError({
            code: 'WEIR_MODEL_DATASET',
            message: `Dataset ${twin.name} is defined twice, first in ${twin.file}.`,
            next: 'rename one of them',
            file: file.path,
            line: 1,
          }),
        )
      else if (found.dataset) datasets.push(found.dataset)
    } catch (error) {
      errors.push(...asErrors(error, file.path))
    }
  }

  const views: View[] = []
  const broken = errors.length > 0
  for (const file of sorted.filter((f) => /^views\/[^/]+\.sql$/.test(f.path))) {
    const name = file.path.slice('views/'.length, -'.sql'.length)
    try {
      const view = await parseView(name, file, datasets, broken, tools)
      if (view) views.push(view)
    } catch (error) {
      errors.push(...asErrors(error, file.path))
    }
  }
  if (errors.length > 0) throw new ProjectErrors(errors)
  return { settings, datasets, views }
}

const parseView = async (
  name: string,
  file: ProjectFile,
  datasets: Dataset[],
  broken: boolean,
  tools: SqlTools,
): Promise<View | null> => {
  if (!VIEW_NAME.test(name))
    throw new WeirError({
      code: 'WEIR_MODEL_VIEW',
      message: `${name} cannot name a view.`,
      expected: 'a file name of a letter, then letters, digits or _, at most 63',
      got: name,
      next: 'rename the file',
      file: file.path,
      line: 1,
    })
  const from = fromName(await tools.parse(file.text))
  const dataset = datasets.find((d) => d.name.toLowerCase() === from?.toLowerCase())
  if (dataset) return compileView({ name, sql: file.text, file: file.path, dataset }, tools)
  // With a broken dataset file the missing name is most likely its victim: say nothing more.
  if (broken) return null
  const near = from === null ? null : nearest(from, [...datasets.map((d) => d.name)])
  throw new WeirError({
    code: 'WEIR_MODEL_VIEW',
    message: from === null ? 'A view reads FROM exactly one dataset.' : `There is no dataset ${from}.`,
    expected: datasets.length
      ? `FROM one of ${datasets.map((d) => d.name).join(', ')}`
      : 'a dataset in datasets/*.yaml',
    got: from ?? 'no plain table after FROM',
    next: near ? `did you mean ${near}?` : 'name a dataset after FROM',
    file: file.path,
    line: Math.max(1, file.text.split('\n').findIndex((l) => /\bfrom\b/i.test(l)) + 1),
  })
}
