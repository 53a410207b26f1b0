/** `weir audit`: every answer against plain SQL over the lake and the log, cell by cell. */
import type { Command } from 'commander'
import type { Client } from '../client.ts'
import { type CommonOptions, clientOf, jsonOption, serverOptions, show } from '../context.ts'
import { viewNames } from '../jobs.ts'
import { Exit, table } from '../output.ts'

export type AuditResult = {
  view: string
  version: string
  generation: string
  cut: Record<string, string>
  upper: Record<string, string>
  rows: number
  /** Counted events that the reference read. */
  events: number
  differences: number
  /** The first ones: key, and what the answer and the reference say. */
  cells: Record<string, unknown>[]
}

export const auditView = (client: Client, view: string): Promise<AuditResult> =>
  client.json<AuditResult>('POST', `/v1/views/${encodeURIComponent(view)}/audit`, {}, { retry: true })

export const auditCommand = (program: Command): void => {
  const command = program
    .command('audit')
    .argument('[view]', 'view (default: all)')
    .addHelpText(
      'after',
      `
The server answers the whole view, merged from batch and speed, then runs the reference query (see \`weir check --reference\`)
once over all records below the answer's upper offsets: from the lake, and from the log where the lake does not reach.
The reference shares no code with the layers. 0 differing cells is the promise.

Examples:
  weir audit
  weir audit revenue_by_country --json`,
    )
  jsonOption(serverOptions(command)).action(async (view: string | undefined, options: CommonOptions) => {
    const client = await clientOf(options)
    const results: AuditResult[] = []
    for (const name of view === undefined ? await viewNames(client) : [view])
      results.push(await auditView(client, name))
    show(options, results, () =>
      [
        table(
          [
            { name: 'view' },
            { name: 'rows', numeric: true },
            { name: 'events', numeric: true },
            { name: 'generation', numeric: true },
            { name: 'upper' },
            { name: 'differing', numeric: true },
          ],
          results.map((r) => [r.view, r.rows, r.events, r.generation, r.upper, r.differences]),
        ),
        ...results.flatMap((r) => r.cells.map((c) => `${r.view}: ${JSON.stringify(c)}`)),
      ].join('\n'),
    )
    if (results.some((r) => r.differences !== 0)) throw new Exit(1)
  })
}
