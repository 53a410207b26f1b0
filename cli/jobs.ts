/** Batch jobs of a running server, from a terminal: submit, follow, tell. */
import { setTimeout as wait } from 'node:timers/promises'
import { WeirError } from '../model/errors.ts'
import type { Job } from '../model/ports/scheduler.ts'
import type { Client } from './client.ts'
import { progress } from './output.ts'

/** Submits a job and follows it to its end. Throws what it failed with. */
export const runJob = async (
  client: Client,
  view: string,
  action: string,
  options: Record<string, unknown> = {},
  quiet = false,
): Promise<Job> => {
  const { id } = await client.json<{ id: string }>(
    'POST',
    `/v1/views/${encodeURIComponent(view)}/batch/${action}`,
    options,
    { retry: true },
  )
  const bar = progress(`${action} ${view}`, 1_000, quiet)
  try {
    for (let pauseMs = 20; ; pauseMs = Math.min(1_000, pauseMs * 1.5)) {
      const job = await client.json<Job>('GET', `/v1/jobs/${id}`)
      if (job.state === 'done') {
        bar.update(1_000, 'done')
        return job
      }
      if (job.state === 'failed')
        throw new WeirError({
          code: job.error?.code ?? 'WEIR_CLI_JOB_FAILED',
          message: `${action} of ${view} failed: ${job.error?.message ?? 'the server does not say why'}`,
          next: job.error?.next ?? 'see the log of the server',
        })
      bar.update(Math.floor(job.progress * 1_000), job.state)
      await wait(pauseMs)
    }
  } finally {
    bar.stop()
  }
}

/** Names of all views the key may see. */
export const viewNames = async (client: Client): Promise<string[]> => {
  const listed = await client.json<{ views: { name: string }[] }>('GET', '/v1/views')
  return listed.views.map((v) => v.name)
}
