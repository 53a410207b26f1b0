/** `weir send`: NDJSON from a file or stdin through HTTP. */
import type { Command } from 'commander'
import { WeirError } from '../../model/errors.ts'
import { type CommonOptions, clientOf, jsonOption, serverOptions, show, stopSignal, wholeNumber } from '../context.ts'
import { isBlank, linesOf, openInput } from '../lines.ts'
import { Exit, note, progress } from '../output.ts'
import { openSender, rejectionLines, sentText } from '../sending.ts'

type SendOptions = CommonOptions & { batch: number; parallel: number; idempotencyKey?: string }

const arrayInput = (): WeirError =>
  new WeirError({
    code: 'WEIR_CLI_NOT_NDJSON',
    message: 'The input is one JSON array.',
    expected: 'NDJSON: one JSON object per line',
    got: 'a first line that begins with [',
    next: 'pipe it: jq -c ".[]" file.json | weir send <dataset> -',
  })

export const sendCommand = (program: Command): void => {
  const command = program
    .command('send')
    .argument('<dataset>', 'dataset')
    .argument('[file]', 'file of one JSON object per line, .gz or not; - is stdin', '-')
    .option('--batch <events>', 'most events of one request', wholeNumber('--batch', 1, 100_000), 5_000)
    .option(
      '--parallel <n>',
      'requests at a time; above 1 the order of the file is not kept',
      wholeNumber('--parallel', 1, 32),
      1,
    )
    .option('--idempotency-key <key>', 'with the same key and file a repeated run within the hour counts nothing twice')
    .addHelpText(
      'after',
      `
Prints how many events were accepted and rejected, and why; exits 1 if any was rejected. Accepted means durable.
Overload (429, 503) and broken connections are retried; a retry never counts twice.

Examples:
  weir send orders orders.ndjson
  weir send orders orders.ndjson.gz --url http://10.0.0.5:8080
  tail -f app.log | grep '^{' | weir send page_views - --batch 100`,
    )
  jsonOption(serverOptions(command)).action(async (dataset: string, file: string, options: SendOptions) => {
    const signal = stopSignal()
    const client = await clientOf(options, signal)
    const input = await openInput(file)
    const bar = progress(dataset, input.total, options.json)
    const sender = openSender({
      client,
      dataset,
      events: options.batch,
      parallel: options.parallel,
      runId: options.idempotencyKey,
      progress: (sent) => bar.update(input.read(), sentText(sent)),
    })
    let number = 0
    try {
      for await (const line of linesOf(input.bytes)) {
        number++
        if (isBlank(line)) continue
        if (number === 1 && line[0] === 0x5b) throw arrayInput()
        await sender.write(line, number)
        if (signal.aborted) break
      }
      const sent = await sender.end()
      bar.stop()
      show(options, sent, () => sentText(sent))
      if (!options.json) for (const line of rejectionLines(sent)) note(line)
      if (sent.rejected > 0) throw new Exit(1)
    } finally {
      bar.stop()
    }
  })
}
