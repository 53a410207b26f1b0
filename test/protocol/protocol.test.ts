/**
 * The protocol's model checkers: all rules on, no violation; one rule off, the checker finds the counter-example.
 * Bounds are chosen so that the whole file takes seconds; `node test/protocol/publish-model.mjs` exhausts the larger ones.
 */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const run = async (file: string, args: string[]): Promise<Record<string, unknown>> => {
  const call = promisify(execFile)(process.execPath, [join(import.meta.dirname, file), ...args], { maxBuffer: 1 << 24 })
  // A counter-example ends the walker with exit code 1.
  const { stdout } = await call.catch((error: { stdout?: string }) => {
    if (error.stdout) return { stdout: error.stdout }
    throw error
  })
  return JSON.parse(stdout.trim().split('\n').at(-1)!) as Record<string, unknown>
}

test.each(['future', 'dedup-small', 'backfill'])('model %s: every state is safe and can converge', async (model) => {
  const found = await run('publish-model.mjs', ['--model', model])
  expect(found).toMatchObject({ complete: true })
  expect(found.violation).toBeUndefined()
})

const MUTANTS: [rule: string, model: string, off: string, set: string][] = [
  ['1 apply is a compare-and-set on the position', 'owners', 'applyPositionCas', '{"cells":"each"}'],
  ['1 and names its epoch', 'owners', 'applyEpochCas', '{}'],
  ['2 an epoch is named by its starting position', 'owners', 'epochByFrom', '{}'],
  ['3 no apply crosses a cut', 'future', 'applyBoundary', '{}'],
  ['4 generation and epoch join at equal positions', 'owners', 'contiguity', '{}'],
  ['5 a fingerprint names the append', 'resend', 'fpAppendIdentity', '{}'],
  ['5 and is compared on every read', 'tail', 'archiverCompare,compareEachRead', '{"lost":0}'],
  ['6 publish is a compare-and-set', 'batch', 'publishCas', '{}'],
  ['9 below the log start the lake catches up', 'backfill', 'catchUpExtend', '{}'],
  ['10 an unknown result is read again', 'tail', 'rereadTxn', '{}'],
  ['13 the archive offset is in the commit', 'tail2', 'txnCas', '{}'],
  ['15 the map takes a batch after applied', 'dedup', 'mapAfterApply', '{}'],
  ['16 blocks are checked by digest', 'reader', 'digest', '{}'],
  ['17 suspect lineages are not rolled back to', 'batch', 'suspect', '{}'],
  ['18 a changelog entry names its epoch', 'follower', 'entryNamesEpoch', '{}'],
  ['19 a token is met against the log', 'token', 'tokenUpperFpLog', '{"N":2}'],
]

test.each(MUTANTS)('without the rule "%s" there is a counter-example', async (_rule, model, off, set) => {
  const found = await run('publish-model.mjs', ['--model', model, '--off', off, '--set', set])
  expect(found.violation).toBeTypeOf('string')
})

test('random walks of the cut protocol: none fails, mutants do', async () => {
  const walks = ['--n', '3', '--walks', '3000', '--steps', '120', '--seed', '7']
  expect(await run('cut-model.mjs', walks)).toMatchObject({ violations: 0 })
  for (const mutant of [
    'noContiguity',
    'resumeFromConsumerOffset',
    'publishNoCas',
    'noFence',
    'twoStepApply',
    'commitNoCas',
    'nameWithoutEnd',
  ])
    expect((await run('cut-model.mjs', [...walks, '--mutant', mutant])).found, mutant).toBeTypeOf('string')
})
