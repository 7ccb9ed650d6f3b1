-- KEYS: epoch, then claim records. ARGV: nonce, claim_ttl_ms
local records = {}
for i = 2, #KEYS do
  local record = redis.call('GET', KEYS[i])
  if not record then
    redis.call('SET', KEYS[i], 'x||', 'PX', ARGV[2])
  end
  records[#records + 1] = record or ''
end
return { epoch, int(now_ms()), records }
