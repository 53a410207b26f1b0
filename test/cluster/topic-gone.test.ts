/** A topic that is deleted while Weir runs: the alarm stands, though no process has a partition of it any more. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { openClient } from '../../cli/client.ts'
import { openTopicTools } from '../log/kafka-support.ts'
import { until } from '../support/server.ts'
import { weir } from '../support/weir.ts'
import { openCluster, places } from './processes.ts'

const at = places()

describe.skipIf(at === null)('a topic deleted while Weir runs', () => {
  test('is an alarm of speed and archive that outlives the rebalance', { timeout: 180_000 }, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'weir-gone-'))
    await weir(['init', join(folder, 'project')])
    const cluster = await openCluster(at!, { project: join(folder, 'project'), env: {} })
    const tools = openTopicTools(at!.kafka)
    try {
      await cluster.start('speed,batch')
      const client = openClient({ url: cluster.urls('speed')[0]! })
      const alarmed = async (): Promise<string[]> => {
        const metrics = (await client.send('GET', '/metrics')).body.toString('utf8')
        return [...metrics.matchAll(/^weir_alarms\{source="([^"]+)",code="WEIR_CLI_TOPIC_GONE"\} 1$/gm)].map(
          (m) => m[1]!,
        )
      }
      expect(await alarmed()).toEqual([])
      await tools.admin.deleteTopics({ topics: [`${cluster.name}.visits`] })
      const sources = await until('both roles raise it', 60_000, async () => {
        const found = await alarmed()
        return found.length === 2 ? found.sort() : undefined
      })
      expect(sources).toEqual(['archive/visits', 'speed/visits'])
    } catch (error) {
      throw new Error(`${String(error)}\n${cluster.logs()}`, { cause: error })
    } finally {
      await tools.close()
      await cluster.close()
      await rm(folder, { recursive: true, force: true })
    }
  })
})
