/** What the HTTP side of a process is given: the shared ports and the roles that run here. */
import type { BatchRuntime } from './batch-runtime.ts'
import type { Shared } from './ports.ts'
import type { SpeedRuntime } from './speed-runtime.ts'

export type ServeOptions = Shared & { batch: BatchRuntime | null; speed: SpeedRuntime | null }
