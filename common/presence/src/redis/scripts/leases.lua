-- KEYS: epoch, workers. ARGV: nonce, lease key prefix
local found = {}
for _, incarnation in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local lease = redis.call('HMGET', ARGV[2] .. incarnation, 'info', 'status', 'seq', 'renewed', 'epoch')
  if not lease[5] then
    redis.call('SREM', KEYS[2], incarnation)
  elseif lease[5] == epoch then
    found[#found + 1] = { lease[1], lease[2], lease[3], lease[4] }
  end
end
return { epoch, int(now_ms()), found }
