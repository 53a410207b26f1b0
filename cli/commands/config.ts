/** `weir config`: every setting, its value here, where it came from. */
import type { Command } from 'commander'
import { parseSettings, settingNames } from '../../model/settings.ts'
import { type CommonOptions, jsonOption, projectOptions, readSettings, show } from '../context.ts'
import { table } from '../output.ts'

const valueAt = (settings: unknown, path: string): unknown =>
  path.split('.').reduce<unknown>((v, key) => (v as Record<string, unknown> | undefined)?.[key], settings)

export const configCommand = (program: Command): void => {
  const command = program.command('config')
  jsonOption(projectOptions(command))
    .addHelpText(
      'after',
      `
Examples:
  weir config                                       all settings of the project in this folder
  WEIR_SERVER_PORT=9000 weir config | grep port     an environment variable wins over weir.yaml`,
    )
    .action(async (options: CommonOptions) => {
      const settings = await readSettings(options)
      const defaults = parseSettings('')
      const rows = settingNames().map((s) => ({
        ...s,
        value: valueAt(settings, s.path),
        default: valueAt(defaults, s.path),
      }))
      show(options, rows, () =>
        table(
          [{ name: 'setting' }, { name: 'value' }, { name: 'default' }, { name: 'environment' }, { name: 'meaning' }],
          rows.map((r) => [r.path, r.value, r.value === r.default ? '' : r.default, r.env, r.description]),
        ),
      )
    })
}
