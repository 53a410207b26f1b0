/**
 * The Lua scripts of the Redis speed store: one that reads and one that commits.
 * Invariant: a commit has checked everything that it checks before its first write, since Redis takes nothing back when a
 * script fails. What to write is decided in JavaScript (store-rules.ts); a script only compares the stored header with the
 * one that the decision was made from, byte by byte (docs/decisions/redis-compare-and-set.md). All keys are declared and share
 * one hash tag, so that scripts run in a Cluster.
 */
import { createHash } from 'node:crypto'

export type Script = { sha: string; lua: string }

const script = (lua: string): Script => ({ lua, sha: createHash('sha1').update(lua).digest('hex') })

/**
 * Header, names of the hashes of blocks, and the number of blocks in each hash that the caller knew of, at one moment.
 *
 * KEYS 1 header (string), 2 index (set of the names of hashes), 3… hashes of blocks
 * ARGV none
 * Returns { header or '' , { name, … }, { blocks of KEYS[3], … } }; a key of another type reads as missing, 0 blocks.
 */
export const READ = script(`#!lua flags=no-writes
local function is(key, kind) return redis.call('TYPE', key).ok == kind end
local header = is(KEYS[1], 'string') and redis.call('GET', KEYS[1]) or ''
local names = is(KEYS[2], 'set') and redis.call('SMEMBERS', KEYS[2]) or {}
local counts = {}
for i = 3, #KEYS do counts[i - 2] = is(KEYS[i], 'hash') and redis.call('HLEN', KEYS[i]) or 0 end
return { header, names, counts }
`)

const COMMIT_BODY = `
local function kind(key) return redis.call('TYPE', key).ok end
local header = kind(KEYS[1]) == 'string' and redis.call('GET', KEYS[1]) or ''
if header ~= ARGV[1] then return 0 end
for i = 4, #KEYS do
  if string.sub(ARGV[3], i - 3, i - 3) == '1' and kind(KEYS[i]) ~= 'hash' then return 0 end
end
local operations, at = {}, 7
while at <= #ARGV do
  local name, key, n = ARGV[at], KEYS[tonumber(ARGV[at + 1]) or 0], tonumber(ARGV[at + 2])
  local puts = name == 'put' or name == 'new'
  if not key or not n or not (puts or name == 'take' or name == 'drop' or name == 'trim') then
    return redis.error_reply('ERR weir: an operation is not understood')
  end
  if (name == 'put' or name == 'trim') and kind(key) ~= 'hash' then return 0 end
  local staged = name == 'take' and KEYS[tonumber(ARGV[at + 3]) or 0]
  if name == 'take' and not (staged and kind(staged) == 'hash' and redis.call('HLEN', staged) == n) then
    return redis.error_reply('ERR weir: staged blocks are gone')
  end
  operations[#operations + 1] = { name = name, key = key, n = n, from = at + 3, staged = staged }
  at = at + 3 + (puts and 2 * n or 0) + (staged and 1 or 0)
end
if at ~= #ARGV + 1 then return redis.error_reply('ERR weir: arguments are missing') end

local function clear(key, wanted)
  local found = kind(key)
  if found ~= wanted and found ~= 'none' then redis.call('UNLINK', key) end
end
clear(KEYS[2], 'set')
for _, o in ipairs(operations) do
  if o.name == 'trim' then
    local ids = o.n > 0 and redis.call('HRANDFIELD', o.key, o.n) or {}
    for i = 1, #ids, 1000 do redis.call('HDEL', o.key, unpack(ids, i, math.min(i + 999, #ids))) end
  else
    if o.name ~= 'put' then redis.call('UNLINK', o.key) end
    if o.name == 'drop' then redis.call('SREM', KEYS[2], o.key) else redis.call('SADD', KEYS[2], o.key) end
    if o.staged then
      redis.call('RENAME', o.staged, o.key)
      redis.call('PERSIST', o.key)
    end
    local last = (o.name == 'put' or o.name == 'new') and o.from + 2 * o.n - 1 or 0
    for i = o.from, last, 1000 do redis.call('HSET', o.key, unpack(ARGV, i, math.min(i + 999, last))) end
  end
end
if ARGV[4] == '-' then
  redis.call('UNLINK', KEYS[3])
elseif ARGV[4] ~= '' then
  clear(KEYS[3], 'zset')
  redis.call('ZADD', KEYS[3], ARGV[5], ARGV[4])
  redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - tonumber(ARGV[6]))
end
if ARGV[2] ~= '' then redis.call('SET', KEYS[1], ARGV[2]) end
return 1
`

/**
 * A change of header, blocks and changelog, iff the stored header is the expected one. Atomic, because a header and the blocks
 * that it speaks of change together or not at all; refused by Redis before it begins when memory is full.
 *
 * KEYS 1 header (string), 2 index (set of the names of hashes), 3 changelog (sorted set: entries by their `from` offset),
 *      4… hashes of blocks (id → block)
 * ARGV 1 expected header ('': none), 2 next header ('': as it is), 3 one digit for each hash: '1' if it must exist,
 *      4 changelog: '' as it is, '-' cleared, or an entry, 5 the entry's offset, 6 number of entries to keep,
 *      7… operations, each: name, number of its key in KEYS, n, and for 'put' and 'new' n times id, block.
 *      'put' adds to a hash that exists, 'new' makes one, 'drop' deletes one, 'trim' deletes any n blocks of one; 'take' makes
 *      one of a staged hash of n blocks, whose number in KEYS follows
 * Returns 1: done; 0: the header is another one, or a hash is not there: nothing was written. An error, likewise before the
 *         first write: staged blocks are gone
 */
export const COMMIT = script(`#!lua${COMMIT_BODY}`)

/** The same for what frees memory or leads to it (a cut lets the batch side take over): also when memory is full. */
export const COMMIT_WHEN_FULL = script(`#!lua flags=allow-oom${COMMIT_BODY}`)

/**
 * Blocks put aside for a commit, part by part, so that no request holds Redis up for long. What no commit takes goes by itself.
 *
 * KEYS 1 staged hash
 * ARGV 1 seconds until it goes, 2… id, block
 * Returns 1
 */
export const STAGE = script(`#!lua
for i = 2, #ARGV, 1000 do redis.call('HSET', KEYS[1], unpack(ARGV, i, math.min(i + 999, #ARGV))) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
`)
