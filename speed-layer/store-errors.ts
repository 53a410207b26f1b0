/** Errors of the speed stores. What is damaged is never an answer: it reads as missing, or refuses to open. */
import { WeirError } from '../model/errors.ts'

export const badFormat = (what: string, version: number, known: number): WeirError =>
  new WeirError({
    code: 'WEIR_SPEED_FORMAT',
    message: `The speed store holds ${what} of format ${version}, which this version of Weir does not know.`,
    expected: `format ${known} or older`,
    got: String(version),
    next: 'start the newer version of Weir that wrote it, or delete the speed store: it is rebuilt from the lake and the log',
  })

export const corrupt = (folder: string, what: string, cause?: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_SPEED_CORRUPT',
    message: `The speed store in ${folder} is damaged: ${what}.`,
    expected: 'a database file as it was written',
    got: what,
    next: 'stop Weir and delete the folder: the speed state is rebuilt from the published views and the log',
    cause,
  })

export const writeFailed = (cause: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_SPEED_WRITE_FAILED',
    message: 'Writing to the speed store failed; whether the change was stored is not known.',
    expected: 'a disk that takes writes',
    got: cause instanceof Error ? cause.message : String(cause),
    next: 'free disk space or check the disk; workers read the state again and go on by themselves',
    retryable: true,
    cause,
  })
