-- KEYS: epoch, then claim records. ARGV: nonce
local records = {}
for i = 2, #KEYS do
  records[#records + 1] = redis.call('GET', KEYS[i]) or ''
end
return { epoch, int(now_ms()), records }
