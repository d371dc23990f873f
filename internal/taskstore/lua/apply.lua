-- Apply results records of one partition, in the order of the log.
--
-- KEYS[1]          hash {next, target} of the partition
-- KEYS[2]          index of deadlines
-- KEYS[3+4i..6+4i] of record i: task hash, result, event stream, tenant index
-- ARGV[1] offset at which this batch continues
-- ARGV[2] offset after the last record fetched (some may be undecodable)
-- ARGV[3] seconds a task's state is kept: longer than its result, so that a
--         late record still meets the end that won
-- ARGV[4] index horizon, milliseconds: older members are dropped
-- ARGV[5+12i..] of record i: offset, task id, status, generation ('' if none),
--          redrive job, end id ('' unless reopened), terminal JSON, time it
--          ended (RFC 3339), time of creation (ms), seconds to keep, live
--          channel, tenant. A record that is too old has status ''.
-- Returns {outcome, next}: 0 applied; 1 a gap, nothing changed; 2 the position
-- is unknown, nothing changed.
--
-- The fold is terminal.State.Apply of schema/terminal. Generations are compared
-- as text or below 256, event ids are only ever copied: neighbours beyond 2^53
-- look equal here.
local ZERO_END = '4503599627370495-0' -- id of generation 0's terminal event
local KEY, FIRST, WIDTH = 3, 5, 12

local place = redis.call('HMGET', KEYS[1], 'next', 'target')
if not place[1] then return {2, 0} end
local upcoming, target = tonumber(place[1]), tonumber(place[2] or '0')
if upcoming < tonumber(ARGV[1]) then return {1, upcoming} end

local deadlines = redis.call('EXISTS', KEYS[2]) == 1
local indexed = {} -- by index: scores and members, to be added in one command

local function index(key, created, id)
  local members = indexed[key]
  if not members then
    members = {}
    indexed[key] = members
  end
  members[#members + 1] = created
  members[#members + 1] = id
end

local function reopen(hash, result, generation, offset, job, ending)
  redis.call('DEL', result)
  redis.call('HSET', hash, 'g', generation, 's', '', 'o', offset, 'j', job, 'end', ending)
  redis.call('EXPIRE', hash, ARGV[3])
end

local function finish(hash, result, stream, a, ending)
  local id, status, json, keep = ARGV[a+1], ARGV[a+2], ARGV[a+6], ARGV[a+9]
  redis.call('HSET', hash, 's', status, 'o', ARGV[a])
  redis.call('EXPIRE', hash, ARGV[3])
  redis.call('SET', result, json, 'EX', keep)
  local event = '{"type":"' .. status .. '","task_id":"' .. id .. '","at":"' .. ARGV[a+7] .. '","result":' .. json .. '}'
  -- A stream that was lost with its Redis is not made anew for its end alone:
  -- readers take that from the result, and each would cost a page of memory.
  if tonumber(ARGV[a]) >= target or redis.call('EXISTS', stream) == 1 then
    -- Refused when it is there already (a rebuild) or when a later generation is.
    redis.pcall('XADD', stream, ending, 'e', event)
    redis.call('EXPIRE', stream, keep)
  end
  redis.call('PUBLISH', ARGV[a+10], ending .. ' ' .. event)
end

for i = 0, (#KEYS - 2) / 4 - 1 do
  local k, a = KEY + 4 * i, FIRST + WIDTH * i
  local hash, status, generation = KEYS[k], ARGV[a+2], ARGV[a+3]
  if tonumber(ARGV[a]) >= upcoming and status ~= '' then
    local state = redis.call('HMGET', hash, 'g', 's', 'end')
    local g, s, ending = state[1] or '0', state[2] or '', state[3] or ZERO_END
    if status == 'reopened' then
      if s == 'dead' and tonumber(g) < 255 and generation ~= '' and tonumber(generation) == tonumber(g) + 1 then
        reopen(hash, KEYS[k+1], generation, ARGV[a], ARGV[a+4], ARGV[a+5])
      end
    elseif s == '' and (generation == '' or generation == g) then
      finish(hash, KEYS[k+1], KEYS[k+2], a, ending)
      index(KEYS[k+3], ARGV[a+8], ARGV[a+1])
      if deadlines then redis.call('ZREM', KEYS[2], g .. ' ' .. ARGV[a+1] .. ' ' .. ARGV[a+11]) end
    end
  end
end

for key, members in pairs(indexed) do
  redis.call('ZADD', key, unpack(members))
  redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. ARGV[4])
  redis.call('EXPIRE', key, ARGV[3])
end

local after = tonumber(ARGV[2])
if after > upcoming then
  redis.call('HSET', KEYS[1], 'next', ARGV[2])
  return {0, after}
end
return {0, upcoming}
