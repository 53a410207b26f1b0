/** A project folder on disk → the texts that `model/project.ts` reads. The only place that touches definition files. */
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { openEngine } from '../engine/engine.ts'
import { sqlTools } from '../engine/sql-tools.ts'
import { WeirError } from '../model/errors.ts'
import { type Project, type ProjectFile, parseProject } from '../model/project.ts'

const FOLDERS: [string, RegExp][] = [
  ['datasets', /\.ya?ml$/],
  ['views', /\.sql$/],
  ['dashboards', /\.ya?ml$/],
]

const isMissing = (error: unknown): boolean => (error as { code?: string }).code === 'ENOENT'

/** Files of the project, paths relative to the folder. Throws WEIR_CLI_NO_PROJECT. */
export const readProjectFiles = async (folder: string, configFile?: string): Promise<ProjectFile[]> => {
  const files: ProjectFile[] = []
  try {
    files.push({ path: 'weir.yaml', text: await readFile(configFile ?? join(folder, 'weir.yaml'), 'utf8') })
  } catch (error) {
    if (!isMissing(error) || configFile !== undefined) throw error
  }
  for (const [sub, pattern] of FOLDERS) {
    const names = await readdir(join(folder, sub)).catch((error: unknown) => {
      if (isMissing(error)) return []
      throw error
    })
    for (const name of names.filter((n) => pattern.test(n)).sort())
      files.push({ path: `${sub}/${name}`, text: await readFile(join(folder, sub, name), 'utf8') })
  }
  const known = await stat(folder).catch(() => null)
  if (known === null || !files.some((f) => f.path.startsWith('datasets/')))
    throw new WeirError({
      code: 'WEIR_CLI_NO_PROJECT',
      message: `${folder} is not a Weir project.`,
      expected: 'a folder with weir.yaml, datasets/*.yaml and views/*.sql',
      got: known === null ? 'no such folder' : 'no dataset',
      next: 'make one with `weir init`, or name it: --project <dir>',
    })
  return files
}

/** Reads and compiles a project with an engine of its own. */
export const loadProject = async (folder: string, configFile?: string): Promise<Project> => {
  const files = await readProjectFiles(folder, configFile)
  const engine = await openEngine({ memoryLimit: '256MB', folders: [] })
  try {
    return await parseProject(files, sqlTools(engine), process.env)
  } finally {
    await engine.close()
  }
}
