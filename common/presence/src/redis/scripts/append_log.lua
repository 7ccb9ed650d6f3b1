-- KEYS: stream, meta. ARGV: seq, chunk, bytes to keep, ttl_ms
local meta = redis.call('HMGET', KEYS[2], 'bytes', 'last', 'ended')
if meta[3] then
  return 0
end
if not meta[2] then
  redis.call('DEL', KEYS[1])
elseif tonumber(ARGV[1]) <= tonumber(meta[2]) then
  return 0
end
local bytes = tonumber(meta[1] or 0) + #ARGV[2]
redis.call('XADD', KEYS[1], ARGV[1] .. '-0', 'd', ARGV[2])
while bytes > tonumber(ARGV[3]) do
  local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  if oldest[1] == ARGV[1] .. '-0' then
    break
  end
  redis.call('XDEL', KEYS[1], oldest[1])
  bytes = bytes - #oldest[2][2]
end
redis.call('HSET', KEYS[2], 'bytes', string.format('%.0f', bytes), 'last', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 1
