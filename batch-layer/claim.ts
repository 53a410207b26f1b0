/**
 * A claim on a view version, held as a lease that is renewed while the work runs. It only orders who tries: extends give way to it, the
 * commit decides; a claim whose holder died ends by itself (rule 17).
 */
import type { View } from '../model/view.ts'
import { alarm, type BatchContext } from './context.ts'

const TTL_MS = 30_000

export type Claim = {
  /** Takes the claim, or tries to; false: somebody else holds it, and we go on without. */
  take(): Promise<boolean>
  release(): Promise<void>
}

export const holdClaim = (ctx: BatchContext, view: View, holder: string): Claim => {
  let timer: NodeJS.Timeout | undefined
  const renew = (): Promise<boolean> => ctx.publications.claim(view.name, view.version, holder, TTL_MS)
  return {
    take: async () => {
      const held = await renew()
      if (held && timer === undefined) {
        timer = setInterval(() => {
          renew().catch((error: unknown) => alarm(ctx, error))
        }, TTL_MS / 3)
        timer.unref()
      }
      return held
    },
    release: async () => {
      if (timer === undefined) return
      clearInterval(timer)
      timer = undefined
      await ctx.publications.release(view.name, view.version, holder).catch((error: unknown) => alarm(ctx, error))
    },
  }
}
