/** `weir dead-letters`: events of the log that no decoder took. They stay where they are; a replay appends mended ones. */
import { readFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { badOption, type CommonOptions, clientOf, jsonOption, serverOptions, show, wholeNumber } from '../context.ts'
import { table } from '../output.ts'

type Letter = {
  partition: number
  offset: number
  index: number
  code: string
  column: string | null
  expected: string
  got: string
  raw: string
  appendTime: string
  status: { state: string; at: string } | null
}
type Page = { letters: Letter[]; next: string | null; total: number }

const nameOf = (l: Letter): string => `${l.partition}:${l.offset}:${l.index}`

const checkName = (name: string): string => {
  if (/^\d+:\d+:\d+$/.test(name)) return name
  throw badOption('position', 'partition:offset:index, as `weir dead-letters list` prints it', name)
}

const pathOf = (dataset: string): string => `/v1/dead-letters/${encodeURIComponent(dataset)}`

const letterText = (l: Letter): string =>
  [
    `${nameOf(l)}  ${l.code}  appended ${l.appendTime}${l.status ? `  ${l.status.state} ${l.status.at}` : ''}`,
    ...(l.column === null ? [] : [`  column:   ${l.column}`]),
    `  expected: ${l.expected}`,
    `  got:      ${l.got}`,
    `  raw:      ${l.raw}`,
  ].join('\n')

export const deadLettersCommand = (program: Command): void => {
  const dead = program.command('dead-letters').addHelpText(
    'after',
    `
The HTTP door rejects broken events before they are in the log, so dead letters come from other writers, or from data that
an older definition let in. They are archived with their reason, named by position (partition:offset:index).

Examples:
  weir dead-letters list orders
  weir dead-letters show orders 0:17:3
  weir dead-letters show orders 0:17:3 --json | jq -r .raw > mended.json     then mend the file
  weir dead-letters replay orders 0:17:3 --event mended.json                 appends it as a new record
  weir dead-letters drop orders 0:17:3`,
  )
  const list = dead
    .command('list')
    .description('dead letters, oldest first')
    .argument('<dataset>', 'dataset')
    .option('--limit <n>', 'most letters', wholeNumber('--limit', 1, 1_000), 50)
    .option('--after <position>', 'those after this one', checkName)
  jsonOption(serverOptions(list)).action(
    async (dataset: string, o: CommonOptions & { limit: number; after?: string }) => {
      const page = await (await clientOf(o)).json<Page>(
        'GET',
        `${pathOf(dataset)}?limit=${o.limit}${o.after ? `&after=${o.after}` : ''}`,
      )
      show(o, page, () =>
        page.letters.length === 0
          ? `${dataset} has no dead letters${o.after ? ' after that' : ''}.`
          : `${table(
              [{ name: 'position' }, { name: 'code' }, { name: 'column' }, { name: 'got' }, { name: 'status' }],
              page.letters.map((l) => [nameOf(l), l.code, l.column ?? '', l.got.slice(0, 60), l.status?.state ?? '']),
            )}\n${page.total} in all${page.next === null ? '' : `; more with --after ${page.next}`}`,
      )
    },
  )
  const one = dead
    .command('show')
    .description('one dead letter, whole')
    .argument('<dataset>')
    .argument('<position>', 'partition:offset:index', checkName)
  jsonOption(serverOptions(one)).action(async (dataset: string, position: string, o: CommonOptions) => {
    const letter = await (await clientOf(o)).json<Letter>('GET', `${pathOf(dataset)}/${position}`)
    show(o, letter, () => letterText(letter))
  })
  const replay = dead
    .command('replay')
    .description('append a mended event (or the same again, after the definition was mended) as a new record')
    .argument('<dataset>')
    .argument('<position>', 'partition:offset:index', checkName)
    .option('--event <file>', 'file with the mended event, one JSON object')
  jsonOption(serverOptions(replay)).action(
    async (dataset: string, position: string, o: CommonOptions & { event?: string }) => {
      const event = o.event === undefined ? undefined : await readFile(o.event, 'utf8')
      const done = await (await clientOf(o)).json<Record<string, unknown>>('POST', `${pathOf(dataset)}/replay`, {
        positions: [position],
        ...(event === undefined ? {} : { event }),
      })
      show(o, done, () => `Replayed ${position}.`)
    },
  )
  const drop = dead
    .command('drop')
    .description('note that a letter needs no replay; it stays in the lake')
    .argument('<dataset>')
    .argument('<position>', 'partition:offset:index', checkName)
  jsonOption(serverOptions(drop)).action(async (dataset: string, position: string, o: CommonOptions) => {
    const done = await (await clientOf(o)).json<Record<string, unknown>>('POST', `${pathOf(dataset)}/drop`, {
      positions: [position],
    })
    show(o, done, () => `Dropped ${position}.`)
  })
}
