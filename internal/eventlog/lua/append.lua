-- Append events of one attempt to the stream that its claim created.
--
-- KEYS[1] event stream
-- ARGV[1] nonce of the writer
-- ARGV[2] seconds to keep
-- ARGV[3] live channel
-- ARGV[4] fence of the attempt, padded: compared as text
-- ARGV[5] sequence that must be there before the first event
-- ARGV[6+2i], ARGV[7+2i] id and JSON of event i
-- Returns the stream's length, -1 if fenced, -2 if the stream, or the end of it,
-- is gone.
--
-- XADD takes any id above the top, so it would not see that the events between
-- are lost (a replica that was promoted lacks the last of them): the top itself
-- must be what this writer wrote last. An event at or below the top is one whose
-- reply was lost: within a fence a writer leaves no holes.
local function pad(fence)
  return string.rep('0', #ARGV[4] - #fence) .. fence
end

local top = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local have = tonumber(ARGV[5])
if top then
  local fence, seq = string.match(top[1], '^(%d+)-(%d+)$')
  if pad(fence) < ARGV[4] then return -2 end -- our claim's entry is gone
  if pad(fence) > ARGV[4] or top[2][4] ~= ARGV[1] then return -1 end
  if tonumber(seq) < have then return -2 end
  have = tonumber(seq)
end

local wrote = false
for i = 6, #ARGV, 2 do
  if not top or tonumber(string.match(ARGV[i], '%d+$')) > have then
    local added = redis.pcall('XADD', KEYS[1], 'NOMKSTREAM', ARGV[i], 'e', ARGV[i+1], 'n', ARGV[1])
    if not added then return -2 end
    if type(added) == 'table' and added.err then return -1 end
    wrote = true
    redis.call('PUBLISH', ARGV[3], ARGV[i] .. ' ' .. ARGV[i+1])
  end
end
if wrote then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return redis.call('XLEN', KEYS[1])
