/** `weir init`: a project to start from, copied from the package. Invariant: no file that is there is ever overwritten. */
import { copyFile, mkdir, readdir, stat, writeFile } from 'node:fs/promises'
import { join, relative, resolve } from 'node:path'
import { type Command, Option } from 'commander'
import { WeirError } from '../../model/errors.ts'
import { jsonOption, show } from '../context.ts'
import { examplesFolder } from '../package.ts'

const filesBelow = async (folder: string): Promise<string[]> => {
  const entries = await readdir(folder, { withFileTypes: true })
  const found = await Promise.all(
    entries.map((e) => (e.isDirectory() ? filesBelow(join(folder, e.name)) : [join(folder, e.name)])),
  )
  return found.flat().sort()
}

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  )

/** Copies an example into a folder; names of the files written, relative to it. Throws WEIR_CLI_EXISTS. */
export const copyExample = async (example: string, into: string): Promise<string[]> => {
  const from = join(examplesFolder, example)
  // The runner of an example belongs to the package's own sources.
  const names = (await filesBelow(from)).map((f) => relative(from, f)).filter((f) => !/\.(ts|js)$/.test(f))
  for (const name of names)
    if (await exists(join(into, name)))
      throw new WeirError({
        code: 'WEIR_CLI_EXISTS',
        message: `${join(into, name)} is there already.`,
        expected: 'a folder without a project',
        next: 'name another folder: weir init <dir>',
      })
  for (const name of names) {
    await mkdir(join(into, name, '..'), { recursive: true })
    await copyFile(join(from, name), join(into, name))
  }
  const ignore = join(into, '.gitignore')
  if (!(await exists(ignore))) await writeFile(ignore, '.weir/\n')
  return names
}

export const initCommand = (program: Command): void => {
  const command = program
    .command('init')
    .argument('[dir]', 'folder; made if missing', '.')
    .addOption(
      new Option('--example <name>', 'what to begin with').choices(['starter', 'shop', 'flights']).default('starter'),
    )
    .addHelpText(
      'after',
      `
Examples:
  weir init metrics                    one dataset and one view, with every line explained
  weir init shop --example shop        an online shop: orders, page views, inventory, promotions
  weir init air --example flights      flights of 2001, with 5,000 of them to send`,
    )
  jsonOption(command).action(async (dir: string, options: { example: string; json?: boolean }) => {
    const folder = resolve(dir)
    const files = await copyExample(options.example, folder)
    show(options, { folder, files }, () =>
      [
        ...files.map((f) => `  ${f}`),
        '',
        'Next:',
        ...(dir === '.' ? [] : [`  cd ${dir}`]),
        '  weir check     compile the definitions',
        '  weir start     serve them',
      ].join('\n'),
    )
  })
}
