/** A process that adds keys to a folder, one after the other: `keys-child.ts <folder> <name> <number>`. */
import { newKey } from '../../http/auth.ts'
import { openFolderKeys } from '../../http/folder-keys.ts'

const [folder, name, count] = process.argv.slice(2)
const keys = await openFolderKeys(folder!)
for (let i = 0; i < Number(count); i++) await keys.add(newKey(`${name}.${i}`, ['admin']).key)
