/** The tests' own object store keeps the contract too: what is shown on it holds on a folder. */
import { memoryObjects } from '../support/memory-object-store.ts'
import { objectStoreContract } from './object-store.ts'

objectStoreContract('memory', async () => {
  const objects = await memoryObjects()
  return { open: async () => objects.open(), damage: objects.damage, remove: objects.remove }
})
