/**
 * Dead letters over HTTP, for administrators: list, show, replay, drop. Invariant: a letter stays in the lake for ever; what
 * happened to it is noted once, and a replay passes the door like any event.
 */
import Type from 'typebox'
import { type FastifyInstance, type FastifyRequest, requireScope } from '../http/app.ts'
import { problem } from '../http/problems.ts'
import type { Door } from '../ingest/door.ts'
import type { DeadTable, LetterPosition, StoredLetter } from '../lake/dead-table.ts'
import { WeirError } from '../model/errors.ts'
import type { Shared } from './ports.ts'

const POSITION = '^\\d{1,9}:\\d{1,16}:\\d{1,9}$'
const Position = Type.String({ pattern: POSITION, description: 'partition:offset:index' })

const parsePosition = (text: string): LetterPosition => {
  const [partition = 0, offset = 0, index = 0] = text.split(':').map(Number)
  return { partition, offset, index }
}
const positionText = (p: LetterPosition): string => `${p.partition}:${p.offset}:${p.index}`

const utf8 = new TextDecoder('utf-8', { fatal: true })
const rawText = (raw: Uint8Array): string => {
  try {
    return utf8.decode(raw)
  } catch {
    return `base64:${Buffer.from(raw).toString('base64')}`
  }
}

const letterJson = (l: StoredLetter) => ({
  position: positionText(l),
  partition: l.partition,
  offset: l.offset,
  index: l.index,
  appendTime: l.appendTime,
  code: l.code,
  column: l.column,
  expected: l.expected,
  got: l.got,
  raw: rawText(l.raw),
  status: l.status === null ? null : { state: l.status.state, at: l.status.at, note: l.status.note },
})

const noLetter = (dataset: string, position: string) =>
  problem(404, {
    code: 'WEIR_CLI_NO_LETTER',
    message: `${dataset} has no dead letter at ${position}.`,
    expected: 'partition:offset:index of a letter that was archived',
    got: position,
    next: 'see `weir dead-letters list`; a letter appears there when its record is archived',
  })

export const deadLetterRoutes = (app: FastifyInstance, shared: Shared, door: Door | null): void => {
  const { lake } = shared.ports.of('batch')
  const { datasets } = shared.options.project
  const admin = { onRequest: requireScope('admin') }
  const nameOf = (request: FastifyRequest): string => (request.params as { dataset: string }).dataset
  const tableOf = (request: FastifyRequest): DeadTable => {
    const dataset = datasets.find((d) => d.name === nameOf(request))
    if (dataset) return lake.dead(dataset)
    throw problem(404, {
      code: 'WEIR_CLI_NO_DATASET',
      message: `There is no dataset ${nameOf(request)}.`,
      expected: `one of ${datasets.map((d) => d.name).join(', ')}`,
      got: nameOf(request),
      next: 'check the name',
    })
  }
  const letterAt = async (request: FastifyRequest, position: string): Promise<StoredLetter> => {
    const letter = await tableOf(request).get(parsePosition(position))
    if (letter === null) throw noLetter(nameOf(request), position)
    return letter
  }
  const tags = ['dead letters']
  const inDataset = Type.Object({ dataset: Type.String() })

  app.get(
    '/v1/dead-letters/:dataset',
    {
      ...admin,
      schema: {
        summary: 'Events of the log that could not be decoded, oldest first, with reasons',
        tags,
        params: inDataset,
        querystring: Type.Object({
          limit: Type.Integer({ default: 50, minimum: 1, maximum: 1_000 }),
          after: Type.Optional(Position),
        }),
      },
    },
    async (request) => {
      const { limit, after } = request.query as { limit: number; after?: string }
      const table = tableOf(request)
      const letters = await table.list({ limit, ...(after === undefined ? {} : { after: parsePosition(after) }) })
      const last = letters.length === limit ? letters.at(-1) : undefined
      return { letters: letters.map(letterJson), next: last ? positionText(last) : null, total: await table.count() }
    },
  )
  app.get(
    '/v1/dead-letters/:dataset/:position',
    {
      ...admin,
      schema: { summary: 'One dead letter', tags, params: Type.Object({ dataset: Type.String(), position: Position }) },
    },
    async (request) => letterJson(await letterAt(request, (request.params as { position: string }).position)),
  )

  const body = Type.Object(
    {
      positions: Type.Array(Position, { minItems: 1, maxItems: 1_000 }),
      event: Type.Optional(Type.String({ description: 'the mended event, one JSON object; with one position only' })),
    },
    { additionalProperties: false },
  )
  type Body = { positions: string[]; event?: string }

  const replay = async (request: FastifyRequest, position: string, event: string | undefined): Promise<void> => {
    if (door === null)
      throw problem(503, {
        code: 'WEIR_CLI_NO_INGEST_ROLE',
        message: 'This process does not run the ingest role, so it cannot replay.',
        expected: 'a process with --role ingest,batch',
        next: 'ask the process that runs both',
      })
    const letter = await letterAt(request, position)
    if (letter.status?.state === 'replayed') {
      // A repeated request does nothing twice; another event for the same letter would count beside the first.
      if (event === undefined) return
      throw problem(409, {
        code: 'WEIR_CLI_REPLAYED',
        message: `The letter at ${position} was replayed already, at ${letter.status.at}.`,
        expected: 'a letter that was not replayed',
        got: 'state replayed',
        next: 'send the event as a new one if it is to count again',
      })
    }
    const bytes = event === undefined ? letter.raw : Buffer.from(event)
    // The same letter replayed twice within the hour is one record.
    const outcome = await door.accept(nameOf(request), bytes, { idempotencyKey: `replay ${position}` })
    if (outcome.accepted === 1 && outcome.rejectedCount === 0) {
      await tableOf(request).mark(parsePosition(position), { state: 'replayed', at: new Date().toISOString() })
      return
    }
    const [first] = outcome.rejected
    throw problem(422, {
      code: first?.code ?? 'WEIR_CLI_REPLAY',
      message: `The event at ${position} is rejected again: ${first?.reason ?? `it holds ${outcome.accepted} events`}`,
      expected: 'one mended event',
      next: 'mend it and replay with --event <file>, or drop it',
    })
  }
  app.post(
    '/v1/dead-letters/:dataset/replay',
    {
      ...admin,
      schema: { summary: 'Append letters again as new records, mended or as they are', tags, params: inDataset, body },
    },
    async (request) => {
      const { positions, event } = request.body as Body
      if (event !== undefined && positions.length !== 1)
        throw problem(
          400,
          new WeirError({
            code: 'WEIR_CLI_REPLAY',
            message: 'A mended event replaces exactly one letter.',
            expected: 'one position',
            got: `${positions.length} positions`,
            next: 'replay them one by one',
          }),
        )
      for (const position of positions) await replay(request, position, event)
      return { replayed: positions }
    },
  )
  app.post(
    '/v1/dead-letters/:dataset/drop',
    {
      ...admin,
      schema: { summary: 'Note that letters need no replay; they stay in the lake', tags, params: inDataset, body },
    },
    async (request) => {
      const { positions } = request.body as Body
      for (const position of positions) {
        await letterAt(request, position)
        await tableOf(request).mark(parsePosition(position), { state: 'dropped', at: new Date().toISOString() })
      }
      return { dropped: positions }
    },
  )
}
