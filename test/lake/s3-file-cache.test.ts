/** The local copies of stored files: checked, within a size, never taken from under who uses them, shared by processes. No server needed. */
import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Expected, type FileCache, type FileCacheOptions, openFileCache } from '../../lake/file-cache.ts'

const KIB = 1024
const contentOf = (name: string, size = KIB): Buffer => Buffer.alloc(size, `${name} `)
const expectedOf = (name: string, size = KIB): Required<Expected> => ({
  size,
  sha256: createHash('sha256').update(contentOf(name, size)).digest('hex'),
})

describe('the file cache', () => {
  let folder: string
  let fetched: string[]
  const opened: FileCache[] = []
  /** As another process would open it. */
  const open = async (options: Partial<FileCacheOptions> = {}): Promise<FileCache> => {
    const cache = await openFileCache({ folder, maxBytes: 16 * KIB, ...options })
    opened.push(cache)
    return cache
  }
  const take = (cache: FileCache, name: string, content = contentOf(name)): Promise<string | null> =>
    cache.take(name, expectedOf(name), async (path) => {
      fetched.push(name)
      await writeFile(path, content)
      return { size: content.length, sha256: createHash('sha256').update(content).digest('hex') }
    })
  const shared = async (): Promise<string[]> => (await readdir(join(folder, 'files'))).sort()

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'weir-cache-'))
    fetched = []
  })
  afterEach(async () => {
    for (const cache of opened.splice(0)) await cache.close()
    await rm(folder, { recursive: true, force: true })
  })

  it('fetches once, also for callers at the same time and for the next process', async () => {
    const cache = await open()
    const paths = await Promise.all([take(cache, 'a'), take(cache, 'a'), take(cache, 'a')])
    expect(new Set(paths).size).toBe(1)
    expect(await readFile(paths[0]!)).toEqual(contentOf('a'))
    expect(await cache.held('a', expectedOf('a'))).toBe(paths[0])
    const other = await open()
    expect(await other.held('a', expectedOf('a'))).toBeNull()
    expect(await readFile((await take(other, 'a'))!)).toEqual(contentOf('a'))
    await cache.close()
    await other.close()
    await take(await open(), 'a')
    expect(fetched).toEqual(['a'])
  })

  it('gives out nothing that is not as expected, and keeps nothing of it', async () => {
    const cache = await open()
    expect(await take(cache, 'a', contentOf('b'))).toBeNull()
    expect(await take(cache, 'a', contentOf('a', 10))).toBeNull()
    expect(await shared()).toEqual([])
    expect(await take(cache, 'a')).not.toBeNull()
    await expect(cache.take('x', expectedOf('x'), () => Promise.reject(new Error('cut')))).rejects.toThrow('cut')
    expect(await shared()).toEqual(['a'])
  })

  it.each([
    ['flipped', (bytes: Buffer) => Buffer.concat([bytes.subarray(0, 500), Buffer.from('!'), bytes.subarray(501)])],
    ['shortened', (bytes: Buffer) => bytes.subarray(0, 900)],
    ['emptied', () => Buffer.alloc(0)],
  ])('fetches a %s copy again: in the process that has it, and in the next', async (_, change) => {
    const cache = await open()
    const path = (await take(cache, 'a'))!
    await writeFile(path, change(contentOf('a')))
    expect(await readFile((await take(cache, 'a'))!)).toEqual(contentOf('a'))
    await cache.close()
    await writeFile(join(folder, 'files', 'a'), change(contentOf('a')))
    expect(await readFile((await take(await open(), 'a'))!)).toEqual(contentOf('a'))
    expect(fetched).toEqual(['a', 'a', 'a'])
  })

  it('keeps to its size, the least recently used first', async () => {
    // Paths are given back at once: any hold is over its lease.
    const cache = await open({ leaseMs: -1 })
    for (let i = 10; i < 30; i++) {
      await take(cache, `f${i}`)
      await take(cache, 'f10') // always in use
    }
    const names = await shared()
    expect(names.length).toBeLessThanOrEqual(16)
    expect(names.length).toBeGreaterThan(12)
    expect(names).toContain('f29')
    expect(names).not.toContain('f12')
  })

  it('never takes a file from under who uses it: this process within its lease, or another one', async () => {
    const [reader, writer] = [await open(), await open({ leaseMs: -1 })]
    const path = (await take(reader, 'used'))!
    for (let i = 0; i < 40; i++) await take(writer, `w${i}`)
    expect(await shared()).toContain('used')
    expect(await readFile(path)).toEqual(contentOf('used'))
    // Even when the shared name is gone, the reader's own stays.
    await rm(join(folder, 'files', 'used'))
    expect(await readFile(path)).toEqual(contentOf('used'))
    // More than the size at once is kept, and goes when it may.
    const greedy = await open()
    const paths: string[] = []
    for (let i = 0; i < 24; i++) paths.push((await take(greedy, `g${i}`))!)
    for (const p of paths) expect((await stat(p)).size).toBe(KIB)
    await greedy.close()
    await open()
    expect((await shared()).length).toBeLessThanOrEqual(16)
  })

  it('lets processes take, evict and remove at the same time', async () => {
    const work = async (seed: number): Promise<void> => {
      for (let i = 0; i < 25; i++) {
        const cache = await open({ maxBytes: 6 * KIB })
        const names = [0, 1, 2, 3].map((n) => `n${(i * 5 + n * 3 + seed) % 12}`)
        const paths = await Promise.all(names.map((name) => take(cache, name)))
        // Others evict meanwhile.
        if (i % 3 === 0) await rm(join(folder, 'files', names[0]!), { force: true })
        await take(cache, `own${seed}.${i}`)
        for (const [n, name] of names.entries()) expect(await readFile(paths[n]!)).toEqual(contentOf(name))
        await cache.close()
      }
    }
    await Promise.all([0, 1, 2, 3].map(work))
    await open({ maxBytes: 6 * KIB })
    expect((await shared()).length).toBeLessThanOrEqual(6)
    expect(fetched.length).toBeGreaterThan(100)
  })

  it('removes what crashed processes left, not what living ones hold', async () => {
    const dead = join(folder, 'use-dead')
    await mkdir(dead, { recursive: true })
    await writeFile(join(dead, 'half.part'), 'x')
    const before = new Date(Date.now() - 7_200_000)
    await utimes(dead, before, before)
    const living = await open()
    const scratch = await living.scratch('.parquet')
    await writeFile(scratch, 'x')
    await open()
    expect((await readdir(folder)).filter((n) => n.startsWith('use-'))).toHaveLength(2)
    expect((await stat(scratch)).size).toBe(1)
    // A process that was taken for dead makes its folder again.
    const path = (await take(living, 'a'))!
    for (const name of await readdir(folder))
      if (name.startsWith('use-')) await rm(join(folder, name), { recursive: true })
    expect(await living.held('a', expectedOf('a'))).toBeNull()
    expect(await take(living, 'a')).not.toBe(path)
    expect(fetched).toEqual(['a'])
  })

  it('adopts a file just written, which yields first', async () => {
    const cache = await open()
    const write = async (name: string): Promise<void> => {
      const path = await cache.scratch('.parquet')
      await writeFile(path, contentOf(name))
      await cache.adopt(name, path, expectedOf(name))
      await expect(stat(path)).rejects.toThrow('ENOENT')
    }
    await write('first')
    expect(await readFile((await cache.held('first', expectedOf('first')))!)).toEqual(contentOf('first'))
    for (let i = 0; i < 40; i++) await write(`later${i}`)
    const names = await shared()
    expect(names).toContain('first')
    expect(names.length).toBeLessThanOrEqual(16)
    expect(fetched).toEqual([])
    await cache.forget('first')
    expect(await shared()).not.toContain('first')
  })
})
