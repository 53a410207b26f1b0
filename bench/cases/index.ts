/** All cases, in the order in which they run. */
import type { Case } from '../harness/case.ts'
import { archive } from './archive.ts'
import { cluster } from './cluster.ts'
import { dedupe } from './dedupe.ts'
import { extend } from './extend.ts'
import { ingest } from './ingest.ts'
import { memory } from './memory.ts'
import { query } from './query.ts'
import { recompute } from './recompute.ts'
import { speed } from './speed.ts'
import { visible } from './visible.ts'

export const CASES: Case[] = [speed, dedupe, ingest, archive, recompute, extend, query, visible, memory, cluster]
