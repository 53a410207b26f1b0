/** `weir config`: every setting, its value here, where it came from. Invariant: no secret is printed. */
import type { Command } from 'commander'
import { settingNames, settingOrigin, shownSetting, strayNames } from '../../model/settings.ts'
import { type CommonOptions, jsonOption, projectOptions, readSettings, settingsText, show } from '../context.ts'
import { note, table } from '../output.ts'
import { strayText } from '../stray.ts'

const valueAt = (settings: unknown, path: string): unknown =>
  path.split('.').reduce<unknown>((v, key) => (v as Record<string, unknown> | undefined)?.[key], settings)

export const configCommand = (program: Command): void => {
  const command = program.command('config')
  jsonOption(projectOptions(command))
    .addHelpText(
      'after',
      `
Secrets are shown as ***; they come from the environment alone.

Examples:
  weir config                                       all settings of the project in this folder
  WEIR_SERVER_PORT=9000 weir config | grep port     an environment variable wins over weir.yaml`,
    )
    .action(async (options: CommonOptions) => {
      const settings = await readSettings(options)
      const { text } = await settingsText(options)
      const rows = settingNames().map((name) => ({
        ...name,
        value: shownSetting(name, valueAt(settings, name.path)),
        origin: settingOrigin(text, process.env, name),
      }))
      for (const stray of strayNames(process.env)) note(strayText(stray))
      show(options, rows, () =>
        table(
          [{ name: 'setting' }, { name: 'value' }, { name: 'from' }, { name: 'environment' }, { name: 'meaning' }],
          rows.map((r) => [r.path, r.value, r.origin, r.env, r.description]),
        ),
      )
    })
}
