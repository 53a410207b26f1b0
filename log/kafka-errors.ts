/**
 * Kafka's error codes, and how they are told to the rest of Weir.
 * Invariant: addresses may be named in an error, secrets never: what a client library says is passed on only as a cause's message.
 */
import { WeirError } from '../model/errors.ts'

/** Codes of the protocol that we act on. */
export const KAFKA = {
  none: 0,
  offsetOutOfRange: 1,
  corruptMessage: 2,
  unknownTopic: 3,
  messageTooLarge: 10,
  notCoordinator: 16,
  recordListTooLarge: 18,
  illegalGeneration: 22,
  unknownMember: 25,
  rebalanceInProgress: 27,
  topicExists: 36,
  invalidRecord: 87,
  unknownTopicId: 100,
  inconsistentTopicId: 103,
} as const

/** Not the leader, leader unknown or fenced, replicas missing, a broker that starts or stops: another try may succeed. */
const RETRIABLE = new Set([3, 5, 6, 7, 8, 9, 13, 14, 15, 16, 19, 20, 41, 56, 72, 74, 75, 78, 89, 100, 103])
const DENIED = new Set([29, 30, 31, 53, 58])

export const isRetriable = (code: number): boolean => RETRIABLE.has(code)

/** A refusal by the broker; inside the room only. */
export class KafkaRefusal extends Error {
  readonly code: number
  constructor(code: number, what: string) {
    super(`${what} was answered with Kafka error ${code}`)
    this.name = 'KafkaRefusal'
    this.code = code
  }
}

/** Throws when `code` is an error. */
export const refuse = (code: number, what: string): void => {
  if (code !== KAFKA.none) throw new KafkaRefusal(code, what)
}

/** Code of a refusal of ours or of kafkajs; undefined: no answer came (connection, time-out). */
export const refusalOf = (error: unknown): number | undefined => {
  if (!(error instanceof Error)) return undefined
  if (error instanceof KafkaRefusal) return error.code
  // kafkajs gathers those of topics made at once, and of partitions whose records are deleted.
  if ('errors' in error && Array.isArray(error.errors)) return refusalOf(error.errors[0])
  if ('partitions' in error && Array.isArray(error.partitions)) {
    return refusalOf((error.partitions[0] as { error?: unknown } | undefined)?.error)
  }
  if ('type' in error && 'code' in error && typeof error.code === 'number') return error.code
  return undefined
}

const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** Whether the same request may be tried again. */
export const mayRetry = (error: unknown): boolean => {
  if (error instanceof WeirError) return error.retryable
  const code = refusalOf(error)
  if (code !== undefined) return isRetriable(code)
  return !(error instanceof Error && error.name === 'KafkaJSSASLAuthenticationError')
}

export const unreachable = (what: string, cause: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_LOG_UNREACHABLE',
    message: `Kafka does not answer: ${what}.`,
    expected: 'a broker that leads the partition and answers in time',
    got: textOf(cause),
    next: 'check the brokers and the network; Weir goes on by itself when they are back, and a retry is safe',
    retryable: true,
    cause,
  })

const denied = (what: string, cause: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_LOG_DENIED',
    message: `Kafka refuses Weir's user: ${what}.`,
    expected:
      'a user that may describe, read and write the topic, and create topics and delete records where Weir is to',
    got: textOf(cause),
    next: 'check the credentials in the environment and the ACLs of the topic, the group and the cluster',
    cause,
  })

const refused = (what: string, cause: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_LOG_REFUSED',
    message: `Kafka refuses a request: ${what}.`,
    expected: 'a request that the broker takes',
    got: textOf(cause),
    next: 'look up the error code in the Kafka protocol, and check the settings of topic and broker',
    cause,
  })

/** The error that callers see. */
export const toWeirError = (error: unknown, what: string): WeirError => {
  if (error instanceof WeirError) return error
  const code = refusalOf(error)
  if (code !== undefined && DENIED.has(code)) return denied(what, error)
  if (error instanceof Error && error.name === 'KafkaJSSASLAuthenticationError') return denied(what, error)
  if (code !== undefined && !isRetriable(code)) return refused(what, error)
  return unreachable(what, error)
}

export const brokerTooOld = (got: string): WeirError =>
  new WeirError({
    code: 'WEIR_LOG_BROKER_TOO_OLD',
    message: 'The Kafka broker does not know topic ids.',
    expected: 'Kafka 3.1 or newer (Fetch 13, Metadata 12)',
    got,
    next: 'upgrade the brokers, or use the embedded log',
  })

export const compacted = (topic: string): WeirError =>
  new WeirError({
    code: 'WEIR_LOG_COMPACTED',
    message: `The topic ${topic} is compacted: Kafka removes records from its middle, so no answer could be checked.`,
    expected: 'cleanup.policy=delete, now and in the past',
    got: 'cleanup.policy with compact, or gaps between offsets',
    next: 'copy the events to a topic that is not compacted, and name that one',
  })

export const createTime = (topic: string): WeirError =>
  new WeirError({
    code: 'WEIR_LOG_CREATE_TIME',
    message: `The topic ${topic} keeps the producers' times, and its dataset removes duplicates by append time.`,
    expected: 'message.timestamp.type=LogAppendTime',
    got: 'message.timestamp.type=CreateTime',
    next: 'set message.timestamp.type=LogAppendTime on the topic before its first event is counted, or leave out `dedupe`',
  })

export const oldFormat = (topic: string, magic: number): WeirError =>
  new WeirError({
    code: 'WEIR_LOG_MESSAGE_FORMAT',
    message: `The topic ${topic} holds messages of format ${magic}, which have no leader epoch.`,
    expected: 'message format 2 (Kafka 0.11 and newer)',
    got: String(magic),
    next: 'copy the topic with a current producer, and name the copy',
  })

export const damaged = (what: string, cause: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_LOG_CORRUPT',
    message: `The event log is damaged: ${what} does not match its checksum.`,
    expected: 'stored bytes that match their checksum',
    got: what,
    next: 'check the disk of the broker that leads the partition and let a whole replica lead; archived records are in the lake',
    cause,
  })

export const recordTooLarge = (bytes: number, cause: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_LOG_RECORD_TOO_LARGE',
    message: 'Kafka takes no record of this size.',
    expected: "at most the topic's max.message.bytes",
    got: `${bytes} bytes`,
    next: 'send smaller events, or raise max.message.bytes of the topic',
    cause,
  })

export const clockAhead = (topic: string, partition: number, appendTimeMs: number, nowMs: number): WeirError =>
  new WeirError({
    code: 'WEIR_LOG_CLOCK_AHEAD',
    message: `A record of ${topic}/${partition} was appended more than 5 minutes in the future: windows stand still until then.`,
    expected: `at most ${new Date(nowMs + 5 * 60_000).toISOString()}`,
    got: new Date(appendTimeMs).toISOString(),
    next: 'check the clocks of the brokers',
  })
