-- KEYS: stream, meta. ARGV: ttl_ms
local meta = redis.call('HMGET', KEYS[2], 'last', 'ended')
if meta[2] then
  return 0
end
if not meta[1] then
  redis.call('DEL', KEYS[1])
end
redis.call('XADD', KEYS[1], (meta[1] or '0') .. '-1', 'e', '1')
redis.call('HSET', KEYS[2], 'last', meta[1] or '0', 'ended', '1')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 1
