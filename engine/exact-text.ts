/**
 * Text out of the engine, exactly. The library decodes with a TextDecoder of default options, which drops a leading U+FEFF:
 * a value that begins with it would come out as another value than the one that SQL sees. Imported for its effect.
 */
import { createRequire } from 'node:module'

const accessors = createRequire(import.meta.url)('@duckdb/node-api/lib/vectors/dataAccessors.js') as {
  textDecoder?: unknown
}
if (!(accessors.textDecoder instanceof TextDecoder))
  throw new Error('@duckdb/node-api decodes text in another way than the version that Weir was tested with')
accessors.textDecoder = new TextDecoder('utf-8', { ignoreBOM: true })
