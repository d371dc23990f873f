-- Take open tasks whose deadline has passed. Each comes back later, unless it
-- was removed by then: whoever took it may not have ended it.
--
-- KEYS[1] index of deadlines
-- ARGV[1] deadlines up to here, ms
-- ARGV[2] tasks at most
-- ARGV[3] when they come back, as a deadline, ms
-- Returns the members taken.
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, member in ipairs(due) do redis.call('ZADD', KEYS[1], ARGV[3], member) end
return due
