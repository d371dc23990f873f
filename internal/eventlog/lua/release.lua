-- Let go of claims. A claim that is another's by now is left alone.
--
-- KEYS[i]  claim of attempt i
-- ARGV[1]  nonce of the holder
-- ARGV[2]  seconds that a claim with an outcome is kept
-- ARGV[1+2i], ARGV[2+2i] fence of attempt i, padded; '1' if its outcome ends
--          the task: then others stay away for as long as from a running one,
--          in which time the outcome comes to be known
-- Returns how many of the claims were the holder's.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local released = 0
for i, key in ipairs(KEYS) do
  local c = redis.call('HMGET', key, 'n', 'f', 'l')
  if c[1] == ARGV[1] and c[2] == ARGV[1+2*i] then
    released = released + 1
    if ARGV[2+2*i] == '1' then
      redis.call('HSET', key, 'n', '-', 'b', now)
      redis.call('EXPIRE', key, ARGV[2])
    elseif tonumber(c[3] or '0') > 0 then
      redis.call('HSET', key, 'n', '')
    else
      redis.call('DEL', key)
    end
  end
end
return released
