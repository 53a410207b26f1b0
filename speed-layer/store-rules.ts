/**
 * What a speed store decides, as pure functions of the stored header and a call: one place, so that every store whose
 * transaction runs JavaScript decides alike.
 * Invariant: a decision is complete before anything is written, and never changes the header it was given.
 */
import { EMPTY_DIGEST } from '../model/digest.ts'
import { WeirError } from '../model/errors.ts'
import type {
  Apply,
  ApplyOutcome,
  Block,
  ChangelogEntry,
  Epoch,
  Header,
  ViewHeader,
} from '../model/ports/speed-store.ts'
import { type Position, samePosition } from '../model/position.ts'

export const HEADER_FORMAT = 1
/** Entries that a changelog keeps; older ones go with the apply that pushes them out. */
export const CHANGELOG_ENTRIES = 256

export const emptyEpoch = (at: Position): Epoch => ({ from: at, to: at, blocks: 0, digest: EMPTY_DIGEST })

export const openEpoch = (view: ViewHeader): Epoch => view.epochs[view.epochs.length - 1]!

const badCall = (message: string, got: unknown): WeirError =>
  new WeirError({
    code: 'WEIR_SPEED_BAD_CALL',
    message,
    expected: 'a call as model/ports/speed-store.ts describes it',
    got: JSON.stringify(got),
    next: 'this is a defect in the speed or batch layer',
  })

const checkPosition = (p: Position): void => {
  if (!Number.isSafeInteger(p.offset) || p.offset < 0 || p.logId === '' || (p.offset === 0) !== (p.fingerprint === ''))
    throw badCall('A position is not one.', p)
}

const checkBlocks = (blocks: Block[]): void => {
  const ids = new Set(blocks.map((b) => b.id))
  if (ids.size !== blocks.length) throw badCall('Two blocks of one epoch have the same id.', [...ids])
  for (const { id, hash } of blocks)
    if (!/^[\x21-\x7e]{1,200}$/.test(id) || !/^[0-9a-f]{32}$/.test(hash))
      throw badCall('A block has no proper id or hash.', { id, hash })
}

const checkEpoch = (epoch: Epoch): void => {
  checkPosition(epoch.from)
  checkPosition(epoch.to)
  if (!Number.isSafeInteger(epoch.blocks) || epoch.blocks < 0 || !/^[0-9a-f]{32}$/.test(epoch.digest))
    throw badCall('An epoch has no proper block count and digest.', epoch)
}

/** Throws WEIR_SPEED_BAD_CALL unless the version's epochs are contiguous and end at `position`. */
const checkEpochs = (epochs: Epoch[], position: Position): void => {
  if (epochs.length === 0) throw badCall('A version has no epoch.', epochs)
  for (const [i, epoch] of epochs.entries()) {
    checkEpoch(epoch)
    const next = epochs[i + 1]?.from ?? position
    if (!samePosition(epoch.to, next)) throw badCall('Epochs are not contiguous up to the position.', epochs)
    if (i > 0 && epoch.from.offset <= epochs[i - 1]!.from.offset) throw badCall('Epochs do not ascend.', epochs)
  }
}

export const checkHeader = (header: Header): void => {
  if (header.formatVersion !== HEADER_FORMAT) throw badCall('A header has an unknown format.', header.formatVersion)
  checkPosition(header.position)
  for (const view of Object.values(header.views)) {
    checkEpochs(view.epochs, header.position)
    if (view.epochs.some((e) => e.blocks !== 0)) throw badCall('A fresh header speaks of blocks.', view)
  }
}

/** Whether a stored header is the one that the caller saw. */
export const isExpected = (stored: Header | null, expected: Position | null): boolean =>
  stored === null || expected === null ? stored === expected : samePosition(stored.position, expected)

/** The outcome of an apply, and for 'applied' the header after it. Throws WEIR_SPEED_BAD_CALL for a call that is none. */
export const decideApply = (stored: Header | null, apply: Apply): { outcome: ApplyOutcome; next?: Header } => {
  checkPosition(apply.from)
  checkPosition(apply.to)
  if (apply.to.offset <= apply.from.offset || apply.to.logId !== apply.from.logId)
    throw badCall('An apply does not go forward.', { from: apply.from, to: apply.to })
  for (const write of Object.values(apply.views)) {
    checkBlocks(write.blocks)
    checkEpoch({ from: write.epoch, to: write.epoch, blocks: write.blockCount, digest: write.digest })
  }
  if (stored === null || stored.position.logId !== apply.from.logId) return { outcome: 'stale' }
  const at = stored.position
  if (at.offset < apply.from.offset) return { outcome: 'gap' }
  if (at.offset > apply.to.offset || samePosition(at, apply.to)) return { outcome: 'duplicate' }
  if (!samePosition(at, apply.from)) return { outcome: 'stale' }

  const versions = Object.keys(stored.views)
  if (versions.length !== Object.keys(apply.views).length) return { outcome: 'stale' }
  for (const version of versions) {
    const write = apply.views[version]
    if (write === undefined || !samePosition(write.epoch, openEpoch(stored.views[version]!).from))
      return { outcome: 'stale' }
  }
  const requests = Object.values(stored.views).map((v) => v.requestedCut ?? Number.POSITIVE_INFINITY)
  if (requests.some((cut) => cut < apply.to.offset)) return { outcome: 'boundary' }

  const views: Record<string, ViewHeader> = {}
  for (const version of versions) {
    const { requestedCut, ...view } = stored.views[version]!
    const { blockCount, digest } = apply.views[version]!
    const open = openEpoch(view)
    const epochs = [
      ...view.epochs.slice(0, -1).map((e) => e),
      { from: open.from, to: apply.to, blocks: blockCount, digest },
    ]
    // A requested cut that is reached takes place in this very commit: nothing can slip in between.
    if (requestedCut === apply.to.offset) epochs.push(emptyEpoch(apply.to))
    views[version] =
      requestedCut === undefined || requestedCut === apply.to.offset
        ? { ...view, epochs }
        : { ...view, epochs, requestedCut }
  }
  const { counted, duplicate, dead, watermarkUs } = apply
  return {
    outcome: 'applied',
    next: { formatVersion: 1, position: apply.to, counted, duplicate, dead, watermarkUs, views },
  }
}

export const changeOf = (apply: Apply): ChangelogEntry => ({
  from: apply.from,
  to: apply.to,
  views: Object.fromEntries(
    Object.entries(apply.views).map(([version, w]) => [version, { epoch: w.epoch, blocks: w.blocks.map((b) => b.id) }]),
  ),
})

/** The answer to a cut, and the header after it where it changes. */
export const decideCut = (
  stored: Header | null,
  version: string,
  desired: number,
): { answer: Position | 'pending' | 'missing'; next?: Header } => {
  if (!Number.isSafeInteger(desired) || desired < 0) throw badCall('A cut is asked at no offset.', desired)
  const view = stored?.views[version]
  if (stored === null || view === undefined) return { answer: 'missing' }
  const set = (changed: ViewHeader): Header => ({ ...stored, views: { ...stored.views, [version]: changed } })
  // An epoch after the first that starts at `desired`: this very cut has been made (a lost reply, or a request now met).
  const made = view.epochs.slice(1).find((e) => e.from.offset === desired)
  if (made !== undefined) return { answer: made.from }
  if (desired > stored.position.offset) {
    // The nearest of several requests is kept: whoever asked for a later one asks again.
    const requestedCut = Math.min(view.requestedCut ?? desired, desired)
    return {
      answer: 'pending',
      ...(requestedCut === view.requestedCut ? {} : { next: set({ ...view, requestedCut }) }),
    }
  }
  const open = openEpoch(view)
  if (samePosition(open.from, stored.position)) return { answer: open.from }
  return {
    answer: stored.position,
    next: set({ ...view, epochs: [...view.epochs, emptyEpoch(stored.position)] }),
  }
}

/** The header after a retire, or null when nothing retires. */
export const decideRetire = (stored: Header | null, version: string, upTo: Position): Header | null => {
  const view = stored?.views[version]
  if (stored === null || view === undefined || upTo.logId !== stored.position.logId) return null
  const closed = view.epochs.slice(0, -1)
  const gone = closed.filter((e) => e.to.offset <= upTo.offset)
  if (gone.length === 0) return null
  const changed: ViewHeader = {
    ...view,
    epochs: [...closed.slice(gone.length), openEpoch(view)],
    retiring: [...view.retiring, ...gone.map((e) => e.from)],
  }
  return { ...stored, views: { ...stored.views, [version]: changed } }
}

/** The header with a version added or replaced, or null when the stored position is not `at`. */
export const decideInstall = (
  stored: Header | null,
  at: Position,
  version: string,
  epochs: { epoch: Epoch; blocks: Block[] }[],
): Header | null => {
  checkEpochs(
    epochs.map((e) => e.epoch),
    at,
  )
  for (const { epoch, blocks } of epochs) {
    checkBlocks(blocks)
    if (blocks.length !== epoch.blocks) throw badCall('An installed epoch does not bring all its blocks.', epoch)
  }
  if (stored === null || !samePosition(stored.position, at)) return null
  return { ...stored, views: { ...stored.views, [version]: { epochs: epochs.map((e) => e.epoch), retiring: [] } } }
}

export const withoutVersion = (stored: Header, version: string): Header => ({
  ...stored,
  views: Object.fromEntries(Object.entries(stored.views).filter(([v]) => v !== version)),
})

/** Text that names an epoch in keys: its starting position. */
export const epochName = (from: Position): string => `${from.offset}/${from.logId}/${from.fingerprint}`
