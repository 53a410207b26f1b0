#!/usr/bin/env node
import { setFlagsFromString } from 'node:v8'

// DuckDB, LMDB and file access share libuv's pool of threads. Its size is read when the pool starts, so it is set before
// anything else is loaded: with the default of 4, a few long queries would hold up every append.
process.env.UV_THREADPOOL_SIZE ??= '16'
// What requests bring lies outside V8's heap and dies within milliseconds, yet counts against the room that the heap has until
// it is marked anew. Left alone, V8 gives a small heap so little room that it is marked four times a second under load.
setFlagsFromString('--heap-growing-percent=200')
// A reader that goes away (`weir query … | head`) is not an error of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0)
  throw error
})
const { run } = await import('./program.ts')
await run(process.argv)
