/** `weir versions`: what definitions a view has had, and going back to one in an instant. */
import type { Command } from 'commander'
import { type CommonOptions, clientOf, jsonOption, serverOptions, show } from '../context.ts'
import { table } from '../output.ts'

type Entry = { view: string; version: string; state: string; generation: number | null; sql: string }

export const versionsCommand = (program: Command): void => {
  const versions = program.command('versions').addHelpText(
    'after',
    `
A changed view is filled from the lake while the old version serves, then they are switched in one step. The old one
stays fed until it is dropped, so that going back needs no work.

Examples:
  weir versions list
  weir versions activate revenue_by_country 1f2e3d4c5b6a7988
  weir versions drop revenue_by_country 1f2e3d4c5b6a7988`,
  )
  const list = versions.command('list').description('all versions').argument('[view]', 'view')
  jsonOption(serverOptions(list)).action(async (view: string | undefined, options: CommonOptions) => {
    const all = (await (await clientOf(options)).json<{ versions: Entry[] }>('GET', '/v1/versions')).versions
    const chosen = all.filter((v) => view === undefined || v.view === view)
    show(options, chosen, () =>
      table(
        [{ name: 'view' }, { name: 'version' }, { name: 'state' }, { name: 'generation', numeric: true }],
        chosen.map((v) => [v.view, v.version, v.state, v.generation ?? '']),
      ),
    )
  })
  for (const [action, description, done] of [
    ['activate', 'let this version serve', 'serves now'],
    ['drop', 'end this version: it is no longer fed, and cannot come back', 'is dropped'],
  ] as const) {
    const command = versions.command(action).description(description).argument('<view>').argument('<version>')
    jsonOption(serverOptions(command)).action(async (view: string, version: string, options: CommonOptions) => {
      const result = await (await clientOf(options)).json<Record<string, unknown>>(
        'POST',
        `/v1/views/${encodeURIComponent(view)}/versions/${encodeURIComponent(version)}/${action}`,
        {},
      )
      show(options, result, () => `${view} ${version} ${done}.`)
    })
  }
}
