/** last(x): the value of the latest event, by event time and then position, where x is not NULL. */
import { positioned } from './positioned.ts'

export const last = positioned('last', 'arg_max')
