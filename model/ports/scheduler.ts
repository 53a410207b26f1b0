/** Port: the scheduler of batch work. A job that runs twice must be harmless: jobs propose, the commit decides. Jobs over whole histories hold up no others. */
export type JobAction = 'extend' | 'recompute' | 'verify' | 'publish' | 'rollback' | 'compact'
export type JobState = 'queued' | 'running' | 'done' | 'failed'

export type Job = {
  id: string
  view: string
  action: JobAction
  state: JobState
  /** 0…1 */
  progress: number
  startedAt?: string
  finishedAt?: string
  result?: Record<string, unknown>
  error?: { code: string; message: string; next?: string }
}

export type JobRequest = { view: string; action: JobAction; options?: Record<string, unknown> }

export type Scheduler = {
  /** Registers the recurring jobs of the settings; times are in `timeZone`. Expressions: cron, or `every <n> seconds|minutes|hours`. */
  schedule(name: string, expression: string, timeZone: string, request: () => JobRequest[]): Promise<void>
  submit(request: JobRequest): Promise<string>
  job(id: string): Promise<Job | null>
  /** Newest first. */
  jobs(limit: number): Promise<Job[]>
  cancel(id: string): Promise<boolean>
  close(): Promise<void>
}

/** What carries a job out; given to the scheduler by cli/. */
export type JobRunner = (
  request: JobRequest,
  context: { signal: AbortSignal; progress(fraction: number): void },
) => Promise<Record<string, unknown>>
