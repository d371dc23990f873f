-- Remember what an idempotency key came with, unless it is known.
--
-- KEYS[1] memory of the key
-- ARGV[1] what it came with now
-- ARGV[2] seconds to keep
-- Returns what it came with first, or '' if that is now.
local was = redis.call('GET', KEYS[1])
if was then return was end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return ''
