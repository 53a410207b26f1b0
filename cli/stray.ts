/** What to say of a variable that looks like a setting and is none. Its value is never shown. */
import type { strayNames } from '../model/settings.ts'

export const strayText = ({ name, near }: ReturnType<typeof strayNames>[number]): string =>
  `${name} is no setting and does nothing${near === null ? ': `weir config` lists all' : `: did you mean ${near}?`}`
