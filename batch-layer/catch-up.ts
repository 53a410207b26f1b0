/**
 * Catch-up: where the log no longer holds a version's published cut (a backfill overtaken by retention, a long outage), the version
 * goes on from the lake alone: cut := archived, and the speed side starts there (rule 9).
 */
import type { View } from '../model/view.ts'
import type { BatchContext } from './context.ts'
import { type Extended, type ExtendOptions, extend } from './extend.ts'

/** 'nothing' when the log holds the cut in every partition. */
export const catchUp = (ctx: BatchContext, view: View, options: ExtendOptions = {}): Promise<Extended> =>
  extend(ctx, view, { ...options, speed: false, verify: false })
