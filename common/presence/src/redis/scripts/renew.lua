-- KEYS: epoch, lease, held, cancelled. ARGV: nonce, epoch, status, claim_ttl_ms, claim key prefix
local lease = redis.call('HMGET', KEYS[2], 'epoch', 'revoked', 'ttl', 'refreshed')
if lease[2] then
  return { 'revoked' }
end
if ARGV[2] ~= epoch then
  return { 'epoch', epoch }
end
if lease[1] ~= epoch then
  return { 'unknown' }
end
local now = now_ms()
local seq = redis.call('HINCRBY', KEYS[2], 'seq', 1)
redis.call('HSET', KEYS[2], 'status', ARGV[3], 'renewed', int(now))
redis.call('PEXPIRE', KEYS[2], lease[3])
-- Records of what is held must not expire under a long task. Their count is only paid for every 24th part of their ttl.
if now - tonumber(lease[4] or 0) > tonumber(ARGV[4]) / 24 then
  for _, member in ipairs(redis.call('SMEMBERS', KEYS[3])) do
    redis.call('PEXPIRE', ARGV[5] .. member, ARGV[4], 'GT')
  end
  redis.call('PEXPIRE', KEYS[3], ARGV[4])
  redis.call('PEXPIRE', KEYS[4], ARGV[4])
  redis.call('HSET', KEYS[2], 'refreshed', int(now))
end
return { 'renewed', int(seq), redis.call('SMEMBERS', KEYS[4]) }
