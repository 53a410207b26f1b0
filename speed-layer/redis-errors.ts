/**
 * What a call to Redis that fails says. Invariant: three kinds are told apart: nothing was written (refused), nothing was
 * asked to be written (unreachable), and not known (a write whose reply is lost); addresses are named, secrets never.
 */
import { WeirError } from '../model/errors.ts'

/** First words of errors with which Redis refuses a script before its first command. */
const REFUSALS: Record<string, string> = {
  OOM: 'raise maxmemory, or publish (`weir batch extend`) so that epochs can be swept',
  MISCONF: 'look at the disk of Redis: its last snapshot or append failed',
  NOREPLICAS: 'bring the replicas back that min-replicas-to-write asks for',
  READONLY: 'give the address of the master, of Sentinels, or of the Cluster',
  MASTERDOWN: 'bring the master of this replica back',
  CLUSTERDOWN: 'bring back the masters of the missing slots: `redis-cli --cluster check`',
  LOADING: 'wait: Redis is reading its data',
  BUSY: 'look for a script that does not end: `redis-cli script kill`',
  NOAUTH: 'give the user and password of this Redis',
  WRONGPASS: 'correct the user or password of this Redis',
  NOPERM: 'let the user run commands and scripts on the keys of the prefix: `ACL SETUSER weir on >… ~weir:* +@all`',
}
const PERMANENT = new Set(['READONLY', 'NOAUTH', 'WRONGPASS', 'NOPERM'])

const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

export const firstWord = (error: unknown): string => /^[A-Z]+/.exec(textOf(error))?.[0] ?? ''

/**
 * `last`: what the connection complained of most recently; the error of a call often says less.
 * The error itself is not kept as a cause: ioredis puts the command's arguments into it, blocks and passwords alike.
 */
export const redisFailure = (error: unknown, what: { isWrite: boolean; at: string; last?: unknown }): WeirError => {
  // A connection that is refused its user ends before the call is sent: then only the connection knows why.
  const [cause, word] = [error, ...(what.isWrite ? [] : [what.last])]
    .map((e) => [e, firstWord(e)] as const)
    .find(([, w]) => REFUSALS[w] !== undefined) ?? [error, '']
  const got = [...new Set([textOf(error), ...(what.last === undefined ? [] : [textOf(what.last)])])].join('; ')
  if (REFUSALS[word] !== undefined)
    return new WeirError({
      code: 'WEIR_SPEED_REDIS_REFUSED',
      message: `Redis at ${what.at} refuses (${word}); nothing was changed.`,
      expected: 'a Redis that takes reads and writes',
      got: textOf(cause),
      next: REFUSALS[word],
      retryable: !PERMANENT.has(word),
    })
  if (what.isWrite)
    return new WeirError({
      code: 'WEIR_SPEED_WRITE_FAILED',
      message: `A change in Redis at ${what.at} was not answered; whether it was made is not known.`,
      expected: 'an answer in time',
      got,
      next: 'workers read the state again and go on by themselves; if it stays, run `weir doctor`',
      retryable: true,
    })
  return new WeirError({
    code: 'WEIR_SPEED_REDIS_UNREACHABLE',
    message: `Redis at ${what.at} does not answer.`,
    expected: 'an answer in time',
    got,
    next: 'see that Redis runs and can be reached from here; `weir doctor` tries each server',
    retryable: true,
  })
}

export const badRedisOptions = (message: string, expected: string, got: string): WeirError =>
  new WeirError({
    code: 'WEIR_SPEED_REDIS_OPTIONS',
    message,
    expected,
    got,
    next: 'correct the settings of Redis',
  })

export const contended = (at: string, key: string): WeirError =>
  new WeirError({
    code: 'WEIR_SPEED_REDIS_CONTENDED',
    message: `The header ${key} in Redis at ${at} changed before every one of many tries to change it.`,
    expected: 'one worker for each partition, two for a moment',
    got: 'many at once',
    next: 'see that only one deployment writes under this prefix',
    retryable: true,
  })

export const tooLarge = (at: string, key: string, bytes: number, most: number): WeirError =>
  new WeirError({
    code: 'WEIR_SPEED_REDIS_TOO_LARGE',
    message: `One change of ${key} in Redis at ${at} has ${bytes} bytes of blocks, which Redis does not take at once.`,
    expected: `at most ${most} bytes`,
    got: String(bytes),
    next: 'give the dataset more partitions, lower speed.batchBytes, or extend more often',
  })
