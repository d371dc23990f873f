-- Begin the events of an attempt: write its first entry, creating the stream.
--
-- KEYS[1] event stream
-- ARGV[1] id of the entry, <fence>-0
-- ARGV[2] event JSON
-- ARGV[3] nonce of the writer
-- ARGV[4] seconds to keep
-- ARGV[5] live channel
-- Returns 0 written (now, or by this writer before), 1 fenced.
local added = redis.pcall('XADD', KEYS[1], ARGV[1], 'e', ARGV[2], 'n', ARGV[3])
if type(added) == 'table' and added.err then
  local there = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
  if #there == 1 and there[1][2][4] == ARGV[3] then return 0 end
  return 1
end
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('PUBLISH', ARGV[5], ARGV[1] .. ' ' .. ARGV[2])
return 0
