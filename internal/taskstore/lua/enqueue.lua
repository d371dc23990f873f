-- Count a task among those that wait behind its ordering key, unless too many do.
--
-- KEYS[1] queue of the key: ids by deadline
-- ARGV[1] task id
-- ARGV[2] its deadline, ms
-- ARGV[3] members at most
-- ARGV[4] the present, ms: at the limit, members whose deadline is past it leave
-- ARGV[5] seconds to keep: no deadline is further away
-- Returns 0 if the queue is full and nothing changed but that, 1 if the task is
-- in now, 2 if it was before.
local was = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not was then
  local limit = tonumber(ARGV[3])
  if redis.call('ZCARD', KEYS[1]) >= limit then
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[4])
    if redis.call('ZCARD', KEYS[1]) >= limit then return 0 end
  end
end
redis.call('ZADD', KEYS[1], 'GT', ARGV[2], ARGV[1]) -- a repeat may live longer than what came first
redis.call('EXPIRE', KEYS[1], ARGV[5])
return was and 2 or 1
