-- Show what became of a task's webhook, unless more is shown already.
--
-- KEYS[1] hash {o: offset of the last record that is shown, v: JSON}
-- ARGV[1] offset of the last record that this shows
-- ARGV[2] JSON
-- ARGV[3] seconds to keep
-- Returns 1 if it was shown, 0 if not.
local shown = redis.call('HGET', KEYS[1], 'o')
if shown and tonumber(shown) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'o', ARGV[1], 'v', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
