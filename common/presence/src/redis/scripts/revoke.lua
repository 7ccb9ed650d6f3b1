-- KEYS: epoch, workers, lease. ARGV: nonce, incarnation, claim_ttl_ms
-- The mark must outlast whatever the incarnation could still try: its claims' records.
redis.call('HSET', KEYS[3], 'revoked', '1')
redis.call('PEXPIRE', KEYS[3], ARGV[3])
redis.call('SREM', KEYS[2], ARGV[2])
return 1
