-- Tell which tasks have ended, once or more.
--
-- KEYS[i] task hash
-- Returns the index and the generation of the latest end of each that has one,
-- one after the other; nothing of the others.
local out = {}
for i, key in ipairs(KEYS) do
  local c = redis.call('HMGET', key, 'g', 's')
  local generation = tonumber(c[1] or '0')
  if (c[2] or '') == '' then generation = generation - 1 end -- open, as it is after it was reopened
  if generation >= 0 then
    out[#out + 1] = i
    out[#out + 1] = generation
  end
end
return out
