/**
 * Planted faults. Each is one exact replacement in one source file; the oracle, run on the bundle with it, must
 * find a difference. Invariant: a canary whose text is no longer in the source fails loudly, so none of them rots.
 */

export type Canary = {
  name: string
  /** Rule of PROMISES §4 that is broken; null: another promise. */
  rule: number | null
  file: string
  find: string
  replace: string
  /** A second line of defence that would hide the fault: planted together. */
  also?: { file: string; find: string; replace: string }[]
  /** First seed to try: one that is known to catch it soon. Default 1. */
  from?: number
}

/** Digests hide some faults by refusing to answer: planted beside those. */
const UNCHECKED = {
  file: 'serving-layer/speed-draft.ts',
  find: 'fits &&= sameEpoch(own, epoch)',
  replace: 'fits &&= own !== undefined',
}

export const CANARIES: Canary[] = [
  {
    name: 'missing compare-and-set: the position is not compared',
    rule: 1,
    file: 'speed-layer/store-rules.ts',
    find: `  if (at.offset < apply.from.offset) return { outcome: 'gap' }
  if (at.offset > apply.to.offset || samePosition(at, apply.to)) return { outcome: 'duplicate' }
  if (!samePosition(at, apply.from)) return { outcome: 'stale' }
`,
    replace: '',
    from: 6,
  },
  {
    name: 'an apply does not name its epoch',
    rule: 1,
    file: 'speed-layer/store-rules.ts',
    find: 'if (write === undefined || !samePosition(write.epoch, openEpoch(stored.views[version]!).from))',
    replace: 'if (write === undefined)',
    from: 3,
  },
  {
    name: 'epochs not named by the position that they start from',
    rule: 2,
    file: 'serving-layer/speed-draft.ts',
    find: 'export const epochKey = (from: Position): string => `${from.logId}/${from.offset}/${from.fingerprint}`',
    replace: 'export const epochKey = (from: Position): string => from.logId',
    also: [UNCHECKED],
    from: 3,
  },
  {
    name: 'generation and epoch joined without comparing positions',
    rule: 4,
    file: 'serving-layer/plan.ts',
    find: 'held.epochs.findIndex((e) => samePosition(e.from, cut))',
    replace: '0',
    from: 3,
  },
  {
    name: 'an unfit header is taken as fit',
    rule: 8,
    file: 'speed-layer/fitness.ts',
    find: 'header.views[view.version]?.epochs.some((epoch) => samePosition(epoch.from, cut)) ?? false',
    replace: 'cut !== undefined && header.views[view.version] !== undefined',
    from: 30,
  },
  {
    name: 'archive without txn: the lake position is not compared',
    rule: 13,
    file: 'lake/events-table.ts',
    find: `        if (!fits(snapshot)) return null
`,
    replace: '',
    from: 1423,
  },
  {
    name: 'double apply: after an unknown outcome the merged cells stay, and the batch comes again',
    rule: 10,
    file: 'speed-layer/worker.ts',
    find: 'forget(state)\n        throw error',
    replace: "await state.session?.run('COMMIT').catch(() => undefined)\n        throw error",
    from: 1002,
  },
  {
    name: 'retention trims what is not archived',
    rule: 12,
    file: 'batch-layer/retention.ts',
    find: `floor[String(partition)] = (await ctx.history.archived(dataset, partition))?.position.offset ?? 0`,
    replace: `floor[String(partition)] = (await ctx.log.range(dataset, partition)).endOffset`,
    also: [
      {
        file: 'batch-layer/retention.ts',
        find: 'Math.min(floor[p]!, published?.pointer.cut[p]?.offset ?? 0)',
        replace: 'Math.max(floor[p]!, published?.pointer.cut[p]?.offset ?? 0)',
      },
    ],
    from: 1327,
  },
  {
    name: 'the de-duplication map is fed before applied',
    rule: 15,
    file: 'speed-layer/worker.ts',
    find: `  const outcome = await options.store.apply(state.key, call)
`,
    replace: `  state.seen!.accept(decoded.change, header.position)
  const outcome = await options.store.apply(state.key, call)
`,
    from: 1013,
  },
  {
    name: 'the de-duplication map is not bound to a position',
    rule: 15,
    file: 'speed-layer/worker-state.ts',
    find: 'if (state.seen === null || !samePosition(state.seen.position, header.position)) {',
    replace: 'if (state.seen === null) {',
    from: 1555,
  },
  {
    name: 'the de-duplication map is rebuilt empty',
    rule: 15,
    file: 'speed-layer/worker-state.ts',
    find: 'await rebuildSeen(options, dataset, partition, header.position, settings.seenIds)',
    replace:
      'await rebuildSeen({ ...options, history: { ...options.history, window: async () => ({ events: [], records: [] }) } }, dataset, partition, header.position, settings.seenIds)',
    from: 1067,
  },
  {
    name: 'a token is met by any answer',
    rule: 19,
    file: 'serving-layer/tokens.ts',
    find: '(upper(Number(name))?.offset ?? 0) >= at.offset',
    replace: '(upper(Number(name))?.offset ?? 0) >= 0 * at.offset',
    also: [
      {
        file: 'serving-layer/answers.ts',
        find: 'headers.get(Number(p))!.offset >= at.offset',
        replace: 'headers.get(Number(p))!.offset >= 0 * at.offset',
      },
    ],
    from: 1001,
  },
  {
    name: 'cut by event time: the batch takes only events before the cut in event time',
    rule: null,
    file: 'batch-layer/extend.ts',
    find: '${partialSql(view, scan.sql)}',
    replace:
      '${partialSql(view, `(SELECT * FROM ${scan.sql} WHERE ${datasetOf(ctx, view.dataset).eventTime} <= _append_time)`)}',
    from: 1001,
  },
  {
    name: 'merged HLL by addition',
    rule: null,
    file: 'model/measures/approx-count-distinct.ts',
    find: 'const hashes = `list_distinct(flatten(list(${c}.h) FILTER (WHERE ${c}.h IS NOT NULL)))`',
    replace: 'const hashes = `flatten(list(${c}.h) FILTER (WHERE ${c}.h IS NOT NULL))`',
    from: 1010,
  },
  {
    name: 'a minimum merged as a maximum',
    rule: null,
    file: 'model/measures/extreme.ts',
    find: 'merge: (c) => `${aggregate}(${c})`',
    replace: 'merge: (c) => `max(${c})`',
    from: 1011,
  },
  {
    name: 'an extend on a stale base published: its cells are merged into the files of a newer base',
    rule: 6,
    file: 'batch-layer/extend.ts',
    find: 'const done = await extendParts(ctx, view, partsOf(base), from, target.cut, {',
    replace: `const newer = await ctx.publications.current(view.name, view.version)
    const stale = newer === 'dropped' ? null : newer
    const done = await extendParts(ctx, view, partsOf(stale), from, target.cut, {`,
    also: [
      {
        file: 'batch-layer/extend.ts',
        find: `    const published = await publish(ctx, view, {
      base,`,
        replace: `    const published = await publish(ctx, view, {
      base: stale,`,
      },
    ],
    from: 30,
  },
  {
    name: 'blocks without digest',
    rule: 16,
    file: 'serving-layer/speed-draft.ts',
    find: 'fits &&= sameEpoch(own, epoch)',
    replace: 'fits &&= own !== undefined',
    from: 24,
  },
  {
    name: 'a suspect lineage is rolled back to',
    rule: 17,
    file: 'batch-layer/rollback.ts',
    find: `      if (suspects.includes(kept.lineage) && !options.force) throw suspect(view, kept)
`,
    replace: '',
    from: 24,
  },
  {
    name: 'a roll back takes the files as they were to the current cut',
    rule: null,
    file: 'batch-layer/rollback.ts',
    find: 'const start: Cut = { ...kept.cut }',
    replace: 'const start: Cut = { ...from }',
    from: 15,
  },
  {
    name: 'a changelog entry without its epoch',
    rule: 18,
    file: 'serving-layer/speed-draft.ts',
    find: 'const key = epochKey(view.epoch)\n',
    replace: 'const key = open ?? epochKey(entries[0]!.views[version]!.epoch)\n',
    also: [UNCHECKED],
    from: 1116,
  },
  {
    // An answer is never wrong: an unfit header is refused, and rebuilt. What shows is the answer that is gone when the extend dies.
    name: 'retire before publish: a cut is retired up to before it is published',
    rule: null,
    file: 'batch-layer/extend.ts',
    find: `    const published = await publish(ctx, view, {
      base,`,
    replace: `    for (const [p, at] of Object.entries(target.cut))
      await ctx.speed.retire({ dataset: view.dataset, partition: Number(p) }, view.version, at)
    const published = await publish(ctx, view, {
      base,`,
    from: 5413,
  },
  {
    name: 'duplicates do not refresh the window',
    rule: 15,
    file: 'model/decode/seen.ts',
    find: 'putAt(own, known, words, place, ms)',
    replace: 'if (ms - last >= window) putAt(own, known, words, place, ms)',
    from: 1493,
  },
]
