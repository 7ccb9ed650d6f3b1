-- KEYS: epoch, workers, lease, held, cancelled, then one claim record per dispatch.
-- ARGV: nonce, epoch, incarnation, info, status, ttl_ms, claim_ttl_ms, then the dispatches as ti:fence.
local lease = redis.call('HMGET', KEYS[3], 'epoch', 'revoked')
if lease[2] then
  return { 'revoked' }
end
if ARGV[2] ~= epoch then
  return { 'epoch', epoch }
end
if lease[1] ~= epoch then
  -- Resurrected sets say what was held at some earlier time; the caller knows better. Under the same epoch (a repeated
  -- call) they may hold a claim that was granted since.
  redis.call('DEL', KEYS[4], KEYS[5])
end
local now = int(now_ms())
redis.call('HSET', KEYS[3], 'info', ARGV[4], 'epoch', epoch, 'ttl', ARGV[6], 'renewed', now, 'refreshed', now)
redis.call('HSETNX', KEYS[3], 'status', ARGV[5])
local seq = redis.call('HINCRBY', KEYS[3], 'seq', 1)
redis.call('PEXPIRE', KEYS[3], ARGV[6])
redis.call('SADD', KEYS[2], ARGV[3])

local refused = {}
for i = 6, #KEYS do
  local member = ARGV[i + 2]
  local record = redis.call('GET', KEYS[i])
  local state, claim_by, holder
  if record then
    state, claim_by, holder = parse(record)
  end
  if state and state ~= 'x' and holder ~= ARGV[3] then
    refused[#refused + 1] = member
  elseif state ~= 'r' then
    local cancelled = state == 'x' or state == 'c'
    -- claim_by 0: a redelivery carries the older epoch and is refused by that.
    redis.call('SET', KEYS[i], (cancelled and 'c' or 'h') .. '|' .. (state ~= 'x' and claim_by or '0') .. '|' .. ARGV[3],
      'PX', ARGV[7])
    redis.call('SADD', KEYS[4], member)
    if cancelled then
      redis.call('SADD', KEYS[5], member)
    end
  end
end
redis.call('PEXPIRE', KEYS[4], ARGV[7])
redis.call('PEXPIRE', KEYS[5], ARGV[7])
return { 'restored', int(seq), redis.call('SMEMBERS', KEYS[5]), refused }
