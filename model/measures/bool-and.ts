/** bool_and(x): whether every value is true; NULL over no values. */
import { condition } from './condition.ts'

export const boolAnd = condition('bool_and')
