-- KEYS: epoch, workers, lease. ARGV: nonce, incarnation, claim_ttl_ms
-- The answer says how far the lease had come by now, if it stood under this epoch.
local lease = redis.call('HMGET', KEYS[3], 'epoch', 'seq')
-- The mark must outlast whatever the incarnation could still try: its claims' records.
redis.call('HSET', KEYS[3], 'revoked', '1')
redis.call('PEXPIRE', KEYS[3], ARGV[3])
redis.call('SREM', KEYS[2], ARGV[2])
return lease[1] == epoch and tonumber(lease[2]) or false
