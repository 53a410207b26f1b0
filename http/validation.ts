/**
 * Request schemas are TypeBox values. Invariant: bodies are taken as they are, never coerced; query strings and path
 * parameters, which are text by nature, are converted to the declared type first.
 */
import type { TSchema } from 'typebox'
import { Compile } from 'typebox/compile'
import Value from 'typebox/value'

/** Fastify's validator compiler. Unknown keys stand or fall by the schema's `additionalProperties`. */
export const validatorCompiler = ({ schema, httpPart }: { schema: unknown; httpPart?: string }) => {
  const type = schema as TSchema
  const check = Compile(type)
  return (input: unknown): { value: unknown } | { error: Error } => {
    const value = Value.Default(type, httpPart === 'body' ? input : Value.Convert(type, input))
    if (check.Check(value)) return { value }
    const [first] = check.Errors(value)
    const where = first?.instancePath ? `${httpPart ?? 'request'}${first.instancePath}` : (httpPart ?? 'request')
    return { error: new Error(`${where} ${first?.message ?? 'does not fit'}`) }
  }
}
