/** min(x): the least value; NULL over no values. */
import { extreme } from './extreme.ts'

export const min = extreme('min')
