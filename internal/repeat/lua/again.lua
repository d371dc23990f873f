-- Gives a retry the task of the call that it repeats: the one that was left
-- first, or else the oldest that is served, for which two wait then. In one step,
-- so that no other retry finds the call nowhere.
--
-- KEYS[1] calls that were left, KEYS[2] calls that are served
-- ARGV[1] how many calls to keep, ARGV[2] for how many seconds
-- Answers the task's id, or nothing.

local id = redis.call('ZPOPMIN', KEYS[1])[1]
if not id then
  id = redis.call('LMOVE', KEYS[2], KEYS[2], 'LEFT', 'RIGHT')
  if not id then
    return false
  end
end
redis.call('RPUSH', KEYS[2], id)
redis.call('LTRIM', KEYS[2], -ARGV[1], -1)
redis.call('EXPIRE', KEYS[2], ARGV[2])
return id
