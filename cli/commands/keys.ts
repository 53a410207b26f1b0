/** `weir keys`: API keys in the data folder. Invariant: a secret is printed once, when the key is made, and stored nowhere. */
import type { Command } from 'commander'
import { newKey } from '../../http/auth.ts'
import { openFolderKeys } from '../../http/folder-keys.ts'
import { WeirError } from '../../model/errors.ts'
import { badOption, type CommonOptions, dataFolder, jsonOption, listOf, projectOptions, show } from '../context.ts'
import { note, table } from '../output.ts'

const collect = (text: string, before: string[] = []): string[] => [...before, text]

const whereOf = (pairs: string[] | undefined): Record<string, string> | undefined => {
  if (pairs === undefined) return undefined
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf('=')
      if (at < 1) throw badOption('--where', 'column=value, for example customer_id=42', pair)
      return [pair.slice(0, at).trim(), pair.slice(at + 1)]
    }),
  )
}

export const keysCommand = (program: Command): void => {
  const keys = program.command('keys').addHelpText(
    'after',
    `
With no key at all a server listens on loopback only and lets everybody on the machine in. With the first key (and a
restart) every request needs one: Authorization: Bearer wk_…

Examples:
  weir keys create --name shop-backend --scope ingest:orders
  weir keys create --name dashboard --scope query:revenue_by_country --where country=DE
  weir keys create --name ops --scope admin,metrics
  weir keys list
  weir keys revoke 1f2e3d4c5b6a`,
  )
  const create = keys
    .command('create')
    .description('make a key and print it, once')
    .requiredOption(
      '--scope <scopes>',
      'ingest:<dataset>, query:<view>, ingest:*, query:*, metrics, admin; several with commas',
      listOf,
    )
    .option('--name <name>', 'whom it is for', 'unnamed')
    .option('--where <column=value>', 'filter forced on every query of this key; may be repeated', collect)
  jsonOption(projectOptions(create)).action(
    async (options: CommonOptions & { scope: string[]; name: string; where?: string[] }) => {
      const folder = await dataFolder(options)
      const { key, token } = newKey(options.name, options.scope, whereOf(options.where))
      const store = await openFolderKeys(folder)
      const first = (await store.list()).every((k) => k.revokedAt !== undefined)
      await store.add(key)
      show(options, { id: key.id, name: key.name, scopes: key.scopes, where: key.where, key: token }, () => token)
      if (!options.json) {
        note(`Key ${key.id} (${key.name}) may: ${key.scopes.join(', ')}. It is shown only now.`)
        if (first) note('It is the first one: from its next start on the server asks every request for a key.')
      }
    },
  )
  const list = keys.command('list').description('all keys, without their secrets')
  jsonOption(projectOptions(list)).action(async (options: CommonOptions) => {
    const all = (await (await openFolderKeys(await dataFolder(options))).list()).map(({ hash: _, ...rest }) => rest)
    show(options, all, () =>
      table(
        [
          { name: 'id' },
          { name: 'name' },
          { name: 'scopes' },
          { name: 'where' },
          { name: 'created' },
          { name: 'revoked' },
        ],
        all.map((k) => [k.id, k.name, k.scopes.join(','), k.where ?? '', k.createdAt, k.revokedAt ?? '']),
      ),
    )
  })
  const revoke = keys
    .command('revoke')
    .description('end a key; a running server obeys at once')
    .argument('<id>', 'id of the key')
  jsonOption(projectOptions(revoke)).action(async (id: string, options: CommonOptions) => {
    const store = await openFolderKeys(await dataFolder(options))
    if (!(await store.revoke(id)))
      throw new WeirError({
        code: 'WEIR_CLI_NO_KEY',
        message: `There is no live key ${id}.`,
        expected: 'the id of a key that is not revoked',
        got: id,
        next: 'see `weir keys list`',
      })
    show(options, { revoked: id }, () => `Key ${id} is revoked.`)
  })
}
