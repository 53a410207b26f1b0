import { test } from 'vitest'
import { checkHalf, HALF_TIMEOUT_MS, SCHEDULES } from './check.ts'

test(`answers equal the reference over ${SCHEDULES} random schedules, first half`, () => checkHalf(0), HALF_TIMEOUT_MS)
