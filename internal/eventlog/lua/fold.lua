-- Replace the head of a stream by a snapshot of it.
--
-- KEYS[1] event stream
-- KEYS[2] snapshot hash {id, e}
-- ARGV[1] id of the last event folded in
-- ARGV[2] snapshot JSON
-- ARGV[3] seconds to keep
-- ARGV[4] id of the snapshot that was folded in; '' for none
-- ARGV[5] nonce of the writer
-- Returns 1 if done; 0 if somebody else has folded since, or writes the stream
-- now, or if what was folded is not there any more.
local was = redis.call('HGET', KEYS[2], 'id')
if (was or '') ~= ARGV[4] then return 0 end
local top = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if not top or top[2][4] ~= ARGV[5] then return 0 end
if #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[2], 'id', ARGV[1], 'e', ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[3])
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
