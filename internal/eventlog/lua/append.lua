-- Append events of one attempt to the stream that its claim created.
--
-- KEYS[1] event stream
-- KEYS[2] claim, of which q<nonce><fence> is one more than the sequence of the event
--         that its holder wrote last, if nothing was in doubt since
-- ARGV[1] nonce of the writer
-- ARGV[2] live channel
-- ARGV[3] fence of the attempt, padded: compared as text
-- ARGV[4] sequence that must be there before the first event; -1: any, for the
--         first is a gap
-- ARGV[5] '1' if the length is wanted
-- ARGV[5+2i], ARGV[6+2i] id and JSON of event i from 1 on
-- Returns the stream's length or 0, -1 if fenced, -2 if the stream, or the end of
-- it, is gone.
--
-- XADD takes any id above the top, so it would not see that the events between
-- are lost (a replica that was promoted lacks the last of them): the top itself
-- must be what this writer wrote last. The claim's count says so, for a script's
-- writes are lost together, and whoever claims the task anew deletes it; without
-- it the top is read. An event at or below the top is one whose reply was lost:
-- within a fence a writer leaves no holes.
local count = 'q' .. ARGV[1] .. ARGV[3]
local events = (#ARGV - 5) / 2
local have = tonumber(ARGV[4])
local doubt = redis.call('HINCRBY', KEYS[2], count, events) ~= have + 1 + events or have < 0

local function pad(fence)
  return string.rep('0', #ARGV[3] - #fence) .. fence
end

local function refuse(code)
  redis.call('HDEL', KEYS[2], count)
  return code
end

local top
if doubt then
  have = math.max(have, 0)
  top = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
end
if top then
  local fence, seq = string.match(top[1], '^(%d+)-(%d+)$')
  if pad(fence) < ARGV[3] then return refuse(-2) end -- our claim's entry is gone
  if pad(fence) > ARGV[3] or top[2][4] ~= ARGV[1] then return refuse(-1) end
  if tonumber(seq) < have then return refuse(-2) end
  have = tonumber(seq)
end

for i = 6, #ARGV, 2 do
  if not top or tonumber(string.match(ARGV[i], '%d+$')) > have then
    local added = redis.pcall('XADD', KEYS[1], 'NOMKSTREAM', ARGV[i], 'e', ARGV[i+1], 'n', ARGV[1])
    if not added then return refuse(-2) end
    if type(added) == 'table' and added.err then return refuse(-1) end
    redis.call('PUBLISH', ARGV[2], ARGV[i] .. ' ' .. ARGV[i+1])
  end
end
if doubt then
  local last = math.max(have, tonumber(string.match(ARGV[#ARGV-1], '%d+$')))
  if redis.call('HGET', KEYS[2], 'n') == ARGV[1] then
    redis.call('HSET', KEYS[2], count, last + 1)
  else
    redis.call('HDEL', KEYS[2], count)
  end
end
if ARGV[5] == '1' then return redis.call('XLEN', KEYS[1]) end
return 0
