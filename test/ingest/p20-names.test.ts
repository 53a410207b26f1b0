/** P20: a key for one dataset does not learn the names of the others, not even from a refusal. */
import { afterEach, expect, test } from 'vitest'
import { createApp } from '../../http/app.ts'
import { newKey } from '../../http/auth.ts'
import { ingestRoutes } from '../../ingest/routes.ts'
import { cleanUp, event, onCleanUp, openWorld, orders } from './support.ts'

afterEach(cleanUp)

test('a key whose dataset is gone is told so and no more', async () => {
  const world = await openWorld({ datasets: [orders({ name: 'secret_project' })] })
  const [narrow, wide] = [newKey('narrow', ['ingest:gone']), newKey('wide', ['ingest:*'])]
  const app = await createApp({
    keys: { list: async () => [narrow.key, wide.key], add: async () => undefined, revoke: async () => false },
    version: '0',
  })
  onCleanUp(() => app.close())
  ingestRoutes(app, world.door)
  const send = (token: string) =>
    app.inject({
      method: 'POST',
      url: '/v1/events/gone',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      payload: event(1),
    })
  const refused = await send(narrow.token)
  expect(refused.statusCode).toBe(404)
  expect(refused.body).not.toContain('secret_project')
  expect((await send(wide.token)).body).toContain('secret_project')
})
