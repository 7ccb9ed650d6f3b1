-- KEYS: epoch, workers, lease, held, cancelled. ARGV: nonce, incarnation
redis.call('SREM', KEYS[2], ARGV[2])
redis.call('DEL', KEYS[4], KEYS[5])
if redis.call('HEXISTS', KEYS[3], 'revoked') == 0 then
  redis.call('DEL', KEYS[3])
end
return 1
