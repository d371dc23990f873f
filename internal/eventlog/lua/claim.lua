-- Begin an attempt: take the task's claim and write the first entry of its
-- events, creating the stream.
--
-- KEYS[1] event stream
-- KEYS[2] claim: hash {n nonce, w worker, f fence, h hop, g generation, s start,
--         b beat, l losses, q<nonce><fence> see append.lua}. n is '' when nobody
--         holds it, '-' when its holder has an outcome. Times are this server's,
--         in milliseconds.
-- ARGV[1] id of the entry, <fence>-0
-- ARGV[2] event JSON
-- ARGV[3] nonce of the writer
-- ARGV[4] seconds to keep
-- ARGV[5] live channel
-- ARGV[6] fence, padded: compared as text
-- ARGV[7] generation
-- ARGV[8] hop
-- ARGV[9] losses that the record tells of
-- ARGV[10] milliseconds after which a claim without a beat is lost
-- ARGV[11] '1' to take the claim even from a holder that beats
-- ARGV[12] worker
-- ARGV[13] losses from which on a record must tell of them all before it runs
-- Returns {code, losses} and, if a lost claim was found, its {fence, worker,
-- start, last beat}. Code 0 written (now, or by this writer before), 1 fenced,
-- 2 held by another, 3 barred: the losses are not in the record yet.
local KEYS_OF_CLAIM = {'n', 'f', 'h', 'g', 'b', 'l', 'w', 's'}

local function unclaimed(c)
  return not c[1] or c[1] == ''
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local c = redis.call('HMGET', KEYS[2], unpack(KEYS_OF_CLAIM))
local told = tonumber(ARGV[9])
local generation = tonumber(c[4] or ARGV[7])
if generation > tonumber(ARGV[7]) then return {1, told} end -- ours was over long ago

local same = generation == tonumber(ARGV[7])
local losses = told
if same then losses = math.max(told, tonumber(c[6] or '0')) end
local beats = now - tonumber(c[5] or '0') < tonumber(ARGV[10])
local lost

if not unclaimed(c) and c[1] ~= ARGV[3] then
  local over = c[1] == '-'
  if beats and ARGV[11] ~= '1' and (same or not over) then return {2, losses} end
  -- A record goes on to its next hop only once an attempt had its outcome.
  if not beats and not over and same and c[3] == ARGV[8] then
    losses = losses + 1
    lost = {c[2], c[7], c[8], c[5]}
  end
end

if losses > told and losses >= tonumber(ARGV[13]) then
  redis.call('HSET', KEYS[2], 'n', '', 'g', ARGV[7], 'l', losses)
  redis.call('EXPIRE', KEYS[2], ARGV[4])
  return {3, losses, lost or {}}
end

-- A newer attempt keeps the claim: if it is lost, its own record finds that.
local takes = unclaimed(c) or not same or c[2] <= ARGV[6]
if takes then
  redis.call('DEL', KEYS[2]) -- with what its holders have written
  redis.call('HSET', KEYS[2], 'n', ARGV[3], 'w', ARGV[12], 'f', ARGV[6], 'h', ARGV[8], 'g', ARGV[7], 's', now, 'b', now, 'l', losses)
  redis.call('EXPIRE', KEYS[2], ARGV[4])
end

local added = redis.pcall('XADD', KEYS[1], ARGV[1], 'e', ARGV[2], 'n', ARGV[3])
if type(added) == 'table' and added.err then
  local there = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
  if #there == 1 and there[1][2][4] == ARGV[3] then return {0, losses, lost or {}} end
  return {1, losses, lost or {}}
end
if takes then redis.call('HSET', KEYS[2], 'q' .. ARGV[3] .. ARGV[6], 1) end
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('PUBLISH', ARGV[5], ARGV[1] .. ' ' .. ARGV[2])
return {0, losses, lost or {}}
