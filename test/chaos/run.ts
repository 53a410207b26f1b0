/** `npm run chaos -- --rounds N --seed S`: more rounds of kill -9 than the tests do. */
import { parseArgs } from 'node:util'
import { runChaos } from './chaos.ts'

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '100' }, seed: { type: 'string' } } })
const seed = Number(values.seed ?? Date.now() % 1_000_000)
const result = await runChaos({ rounds: Number(values.rounds), seed, log: (line) => console.log(line) })
console.log(JSON.stringify({ seed, ...result }))
