-- KEYS: epoch, workers, lease. ARGV: nonce, incarnation, info, status, ttl_ms
if redis.call('HEXISTS', KEYS[3], 'revoked') == 1 then
  return { 'revoked' }
end
local now = int(now_ms())
redis.call('HSET', KEYS[3], 'info', ARGV[3], 'status', ARGV[4], 'epoch', epoch, 'ttl', ARGV[5],
  'renewed', now, 'refreshed', now)
redis.call('HINCRBY', KEYS[3], 'seq', 1)
redis.call('PEXPIRE', KEYS[3], ARGV[5])
redis.call('SADD', KEYS[2], ARGV[2])
return { 'ok', epoch }
