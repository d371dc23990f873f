-- Set the position of a partition, unless somebody else did.
--
-- KEYS[1] hash {next, target}
-- ARGV[1] first offset of the log
-- ARGV[2] end of the log now: the partition is caught up once it is applied
-- ARGV[3] position this call may overwrite; '' for none: only set where missing
-- Returns 1 if it was set, 0 if not.
local upcoming = redis.call('HGET', KEYS[1], 'next')
if upcoming and upcoming ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], 'next', ARGV[1], 'target', ARGV[2])
return 1
