/** first(x): the value of the earliest event, by event time and then position, where x is not NULL. */
import { positioned } from './positioned.ts'

export const first = positioned('first', 'arg_min')
