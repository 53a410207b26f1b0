/** The folder store keeps the object store's contract. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openFolderStore } from '../../lake/folder-object-store.ts'
import { objectStoreContract } from './object-store.ts'

objectStoreContract('folder', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'weir-store-'))
  return {
    open: () => openFolderStore(folder),
    damage: async (key, change) => {
      const path = join(folder, key)
      await writeFile(path, change(await readFile(path)))
    },
    remove: () => rm(folder, { recursive: true, force: true }),
  }
})
