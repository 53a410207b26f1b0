/** bool_or(x): whether some value is true; NULL over no values. */
import { condition } from './condition.ts'

export const boolOr = condition('bool_or')
