/**
 * Keys of the object store. Invariant: a key that passes `checkKey` names one place below the store's root, on every
 * kind of store: relative, `/`-separated, no empty, `.` or `..` segment, nothing that a file system reads as a path of its own.
 */
import { WeirError } from '../model/errors.ts'

/** Folder (below the root) for temporary files; no key may begin with it, so a half-written file never looks like an object. */
export const TEMP_FOLDER = '.weir-tmp'

const refuse = (key: string, why: string): never => {
  throw new WeirError({
    code: 'WEIR_LAKE_KEY',
    message: `An object key ${why}: ${JSON.stringify(key.slice(0, 200))}`,
    expected: 'relative segments joined by /, at most 1024 bytes, none of them empty, ".", ".." or over 255 bytes',
    got: key.slice(0, 200),
    next: 'rename the dataset, view or file that gives the key',
  })
}

/** Throws WEIR_LAKE_KEY for a key that could leave the store or collide with temporary files. */
export const checkKey = (key: string): string => {
  if (key === '' || Buffer.byteLength(key) > 1024) refuse(key, 'is empty or too long')
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused
  if (/[\\\u0000-\u001f\u007f]/.test(key)) refuse(key, 'holds a backslash or a control character')
  for (const [i, segment] of key.split('/').entries()) {
    if (segment === '' || segment === '.' || segment === '..') refuse(key, 'has an empty or dotted segment')
    if (Buffer.byteLength(segment) > 255) refuse(key, 'has a segment that is too long')
    if (i === 0 && segment === TEMP_FOLDER) refuse(key, 'lies in the folder of temporary files')
  }
  return key
}

/** Same for a listing prefix: a folder ending in '/', or '' for everything. */
export const checkPrefix = (prefix: string): string => {
  if (prefix === '') return prefix
  if (!prefix.endsWith('/')) refuse(prefix, 'is no folder ending in /')
  checkKey(prefix.slice(0, -1))
  return prefix
}

/** Order of keys: by UTF-8 bytes, as S3 lists them (JavaScript's `<` compares UTF-16 units). */
export const compareKeys = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b))

/** Fixed-width decimal so that byte order is numeric order. */
export const twentyDigits = (n: number): string => String(n).padStart(20, '0')
