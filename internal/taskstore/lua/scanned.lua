-- Note how far a scan has come, unless Redis lost what it did.
--
-- KEYS[1] hash {epoch, place → offset}
-- ARGV[1] epoch of the scan
-- ARGV[2..] places and offsets, in turns
-- Returns 1 if they were noted, 0 if the scan must start over.
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
