/** Roles of a process. Any subset runs in one process; none needs another to be up in order to stay correct. */
import { badOption } from './context.ts'

export const ROLES = ['ingest', 'speed', 'batch', 'serving'] as const
export type Role = (typeof ROLES)[number]

/** In words, for messages. */
export const roleNames = (roles: readonly Role[]): string =>
  `${roles.length === 1 ? 'the role' : 'the roles'} ${roles.join(', ')}`

export const parseRoles = (text: string): Role[] => {
  const names = text.split(',').map((t) => t.trim())
  const wrong = names.find((n) => !(ROLES as readonly string[]).includes(n))
  if (wrong !== undefined) throw badOption('--role', `some of ${ROLES.join(',')}`, wrong)
  return ROLES.filter((r) => names.includes(r))
}
