/** Quoting for printed SQL: the only way names and literals enter it. */
export const ident = (name: string): string => `"${name.replaceAll('"', '""')}"`
export const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`
