/** What an operator reads when the job queues are in trouble. */
import { expect, test } from 'vitest'
import { queueTrouble } from '../../cli/job-queues.ts'
import { WeirError } from '../../model/errors.ts'

test('what BullMQ says has a code and a next step; what is ours keeps its own', () => {
  expect(queueTrouble(new Error('Missing key for job 7. moveToFinished'))).toMatchObject({
    code: 'WEIR_BATCH_QUEUES',
    message: 'The job queues: Missing key for job 7. moveToFinished',
    next: expect.stringContaining('Redis'),
  })
  const own = new WeirError({ code: 'WEIR_BATCH_REDIS', message: 'm' })
  expect(queueTrouble(own)).toBe(own)
})
