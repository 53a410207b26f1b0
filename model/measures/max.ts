/** max(x): the greatest value; NULL over no values. */
import { extreme } from './extreme.ts'

export const max = extreme('max')
