/** Catch-up under its own name: see `extend.ts`, whose protocol it shares in every step but the speed side's cut. */
export { catchUp } from './extend.ts'
