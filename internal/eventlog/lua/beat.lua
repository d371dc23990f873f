-- Say that attempts still run: their claims hold on, and their events are kept.
-- A claim that is another's by now is left alone.
--
-- KEYS[2i-1] claim of attempt i
-- KEYS[2i]   event stream of its task
-- ARGV[1]    nonce of the holder
-- ARGV[2]    seconds to keep
-- ARGV[2+i]  fence of attempt i, padded
-- Returns how many of the claims are still the holder's.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = 0
for i = 1, #KEYS / 2 do
  local claim = KEYS[2*i-1]
  local c = redis.call('HMGET', claim, 'n', 'f')
  if c[1] == ARGV[1] and c[2] == ARGV[2+i] then
    redis.call('HSET', claim, 'b', now)
    redis.call('EXPIRE', claim, ARGV[2])
    redis.call('EXPIRE', KEYS[2*i], ARGV[2])
    held = held + 1
  end
end
return held
