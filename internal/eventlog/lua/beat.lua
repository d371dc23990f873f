-- Say that attempts still run. A claim that is another's by now is left alone.
--
-- KEYS[i]   claim of attempt i
-- ARGV[1]   nonce of the holder
-- ARGV[1+i] fence of attempt i, padded
-- Returns how many of the claims are still the holder's.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = 0
for i, key in ipairs(KEYS) do
  local c = redis.call('HMGET', key, 'n', 'f')
  if c[1] == ARGV[1] and c[2] == ARGV[1+i] then
    redis.call('HSET', key, 'b', now)
    held = held + 1
  end
end
return held
