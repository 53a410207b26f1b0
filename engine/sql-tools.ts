/** DuckDB's parser and printer, handed to `model/` so that the compiler stays pure. */
import { WeirError } from '../model/errors.ts'
import { ident, literal } from '../model/ident.ts'
import type { SqlTools } from '../model/view.ts'
import type { Engine } from './engine.ts'

export const sqlTools = (engine: Engine): SqlTools => ({
  parse: (sql) =>
    engine.withSession(async (session) => {
      const [row] = await session.rows<{ tree: string }>('SELECT json_serialize_sql($sql::VARCHAR)::VARCHAR AS tree', {
        params: { sql },
      })
      const tree = row!.tree
      const failed = /^\{"error":true/.test(tree)
        ? (JSON.parse(tree) as { error_message?: string; position?: string })
        : null
      if (failed) {
        const position = Number(failed.position ?? 0)
        throw new WeirError({
          code: 'WEIR_MODEL_SQL',
          message: `The SQL cannot be read: ${failed.error_message ?? 'unknown error'}`,
          expected: 'one SELECT statement in DuckDB SQL',
          next: 'correct the statement at the named line',
          line: sql.slice(0, position).split('\n').length,
        })
      }
      return tree
    }),
  print: (tree) =>
    engine.withSession(async (session) => {
      const [row] = await session.rows<{ sql: string }>('SELECT json_deserialize_sql($tree::JSON) AS sql', {
        params: { tree },
      })
      return row!.sql
    }),
  describe: (sql, tables) =>
    engine.withSession(async (session) => {
      const names = Object.keys(tables)
      try {
        for (const name of names) {
          const columns = tables[name]!.map((c) => `${ident(c.name)} ${c.type}`).join(', ')
          await session.run(`CREATE TEMP TABLE ${ident(name)} (${columns})`)
        }
        const rows = await session.rows<{ column_name: string; column_type: string }>(`DESCRIBE ${sql}`)
        return rows.map((r) => ({
          name: r.column_name,
          type: r.column_type.replace('TIMESTAMP WITH TIME ZONE', 'TIMESTAMPTZ'),
        }))
      } catch (cause) {
        throw new WeirError({
          code: 'WEIR_MODEL_BIND',
          message: `DuckDB refuses the statement: ${String(cause).split('\n')[0]}`,
          expected: 'columns and functions that exist, with fitting types',
          got: literal(sql),
          next: 'correct the expression',
          cause,
        })
      }
    }),
})
