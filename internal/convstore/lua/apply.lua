-- Apply records of one partition of penstock.conversations, in the order of the
-- log.
--
-- KEYS[1]          hash {next, target} of the partition
-- KEYS[2+3i..4+3i] of record i: a session's hash {s: settings, sa: when they
--                  were made, su: what their latest record lasts until, u: end
--                  of life, b: bytes of turns, d: when it was deleted}, its
--                  turns, its tasks by offset; or three times the key of a
--                  stored response
-- ARGV[1] offset at which this batch continues
-- ARGV[2] offset after the last record fetched (some may be undecodable)
-- ARGV[3] turns of a session at most
-- ARGV[4] bytes of them at most
-- ARGV[5] time until which a session is kept that is past its life, ms: later
--         records of it may follow
-- ARGV[6+6i..] of record i: offset, step, task id ('' of a session as a whole),
--          JSON, time of the record (ms), end of life (ms). A record that says
--          nothing any more has step ''.
-- Returns {outcome, next}: 0 applied; 1 a gap, nothing changed; 2 the position
-- is unknown, nothing changed.
local place = redis.call('HGET', KEYS[1], 'next')
if not place then return {2, 0} end
local upcoming = tonumber(place)
if upcoming < tonumber(ARGV[1]) then return {1, upcoming} end
local most, bytes, grace = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

-- A session that died before a record came is another one.
local function bury(head, turns, order, at)
  local dies = redis.call('HGET', head, 'u')
  if dies and tonumber(dies) <= tonumber(at) then redis.call('DEL', head, turns, order) end
end

-- The life of a session never becomes shorter.
local function live(head, turns, order, till)
  local dies = redis.call('HGET', head, 'u')
  if not dies or tonumber(dies) < tonumber(till) then
    redis.call('HSET', head, 'u', till)
    dies = till
  end
  if tonumber(dies) < grace then dies = ARGV[5] end
  for _, key in ipairs({head, turns, order}) do redis.call('PEXPIREAT', key, dies) end
end

-- Settings that are written again count where nothing newer is known: those
-- that they repeat, or none, unless these were deleted since.
local function outdated(head, made)
  local known = redis.call('HMGET', head, 'sa', 'd')
  if known[1] then return known[1] ~= made end
  return known[2] and tonumber(made) <= tonumber(known[2])
end

local function turn(head, turns, order, offset, id, json)
  if redis.call('ZADD', order, 'NX', offset, id) == 0 then return end
  redis.call('RPUSH', turns, json)
  local total = redis.call('HINCRBY', head, 'b', #json)
  while redis.call('LLEN', turns) > most or (total > bytes and redis.call('LLEN', turns) > 1) do
    total = redis.call('HINCRBY', head, 'b', -#redis.call('LPOP', turns))
    redis.call('ZREMRANGEBYRANK', order, 0, 0)
  end
end

for i = 0, (#KEYS - 1) / 3 - 1 do
  local k, a = 2 + 3 * i, 6 + 6 * i
  local head, turns, order = KEYS[k], KEYS[k+1], KEYS[k+2]
  local offset, step, id, json, at, till = ARGV[a], ARGV[a+1], ARGV[a+2], ARGV[a+3], ARGV[a+4], ARGV[a+5]
  if tonumber(offset) >= upcoming then
    if step == 'opened' or step == 'kept' and not outdated(head, at) then
      bury(head, turns, order, at)
      redis.call('HSET', head, 's', json, 'sa', at, 'su', till)
      live(head, turns, order, till)
    elseif step == 'turned' then
      bury(head, turns, order, at)
      turn(head, turns, order, offset, id, json)
      live(head, turns, order, till)
    elseif step == 'stored' then
      if redis.call('SETNX', head, json) == 1 then redis.call('PEXPIREAT', head, till) end
    elseif step == 'deleted' and id == '' then
      redis.call('DEL', head, turns, order)
      redis.call('HSET', head, 'd', at) -- for settings that are on their way
      redis.call('PEXPIREAT', head, ARGV[5])
    elseif step == 'deleted' then
      redis.call('SET', head, '')
      redis.call('PEXPIREAT', head, till)
    end
  end
end

local after = tonumber(ARGV[2])
if after > upcoming then
  redis.call('HSET', KEYS[1], 'next', ARGV[2])
  return {0, after}
end
return {0, upcoming}
