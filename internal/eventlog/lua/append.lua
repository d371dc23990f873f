-- Append events of one attempt to the stream that its claim created.
--
-- KEYS[1] event stream
-- ARGV[1] nonce of the writer
-- ARGV[2] seconds to keep
-- ARGV[3] live channel
-- ARGV[4+2i], ARGV[5+2i] id and JSON of event i
-- Returns the stream's length, -1 if fenced, -2 if the stream is gone.
--
-- An id that Redis refuses is ours if the entry is there under our nonce: then
-- the reply to an earlier call was lost.
local wrote = false
for i = 4, #ARGV, 2 do
  local added = redis.pcall('XADD', KEYS[1], 'NOMKSTREAM', ARGV[i], 'e', ARGV[i+1], 'n', ARGV[1])
  if not added then return -2 end
  if type(added) == 'table' and added.err then
    local there = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])
    if #there == 0 or there[1][2][4] ~= ARGV[1] then return -1 end
  else
    wrote = true
    redis.call('PUBLISH', ARGV[3], ARGV[i] .. ' ' .. ARGV[i+1])
  end
end
if wrote then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return redis.call('XLEN', KEYS[1])
