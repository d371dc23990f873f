-- Note that a task is queued or running. A hint never says anything about a
-- task that has ended, never goes back a generation, and an older attempt never
-- hides a newer one.
--
-- KEYS[1] task hash
-- KEYS[2] tenant index
-- KEYS[3] index of deadlines
-- ARGV[1] task id
-- ARGV[2] status: queued or running
-- ARGV[3] generation
-- ARGV[4] attempt: 0 when first queued
-- ARGV[5] time of creation, ms
-- ARGV[6] seconds to keep
-- ARGV[7] deadline, ms; '' if the hint does not say
-- ARGV[8] member of the index of deadlines
-- ARGV[9..] further fields and values to set (model, class, labels)
-- Returns 1 if it was noted, 0 if it was stale.
local was = redis.call('HMGET', KEYS[1], 'g', 's', 'hg', 'ha', 'hs')
local generation, attempt = tonumber(ARGV[3]), tonumber(ARGV[4])
if generation < tonumber(was[1] or '0') then return 0 end
if (was[2] or '') ~= '' and generation <= tonumber(was[1] or '0') then return 0 end
if ARGV[7] ~= '' then
  redis.call('ZADD', KEYS[3], 'NX', ARGV[7], ARGV[8]) -- a later time is that of whoever took it
  redis.call('EXPIRE', KEYS[3], 2 * ARGV[6])
end
if was[3] then
  local g, a = tonumber(was[3]), tonumber(was[4] or '0')
  if generation < g then return 0 end
  if generation == g and (attempt < a or (attempt == 0 and was[5] == 'running')) then return 0 end
end
local set = {'hs', ARGV[2], 'hg', ARGV[3], 'ha', ARGV[4], 'ca', ARGV[5]}
for i = 9, #ARGV do set[#set + 1] = ARGV[i] end
redis.call('HSET', KEYS[1], unpack(set))
if redis.call('TTL', KEYS[1]) < 0 then redis.call('EXPIRE', KEYS[1], ARGV[6]) end
if redis.call('ZADD', KEYS[2], 'NX', ARGV[5], ARGV[1]) == 1 then redis.call('EXPIRE', KEYS[2], ARGV[6]) end
return 1
