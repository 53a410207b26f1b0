/** Sizes as settings write them: `1GB`, `512 MiB`. */
const UNITS: Record<string, number> = {
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  kib: 1024,
  mib: 1024 ** 2,
  gib: 1024 ** 3,
}

/** Bytes of a size; the settings' schema has checked its form. */
export const bytesOf = (text: string): number => {
  const found = /^(\d+(?:\.\d+)?)\s*([KMG]i?B)$/i.exec(text.trim())
  if (!found) throw new Error(`${text} is not a size`)
  return Math.floor(Number(found[1]) * UNITS[found[2]!.toLowerCase()]!)
}

/** DuckDB's share of a process's memory: its limit is none on RSS, and Node, allocators and Parquet buffers need room beside it. */
export const engineShare = (processBytes: number): string =>
  `${Math.max(64, Math.floor((processBytes * 0.55) / 1e6))}MB`
