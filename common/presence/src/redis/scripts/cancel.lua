-- KEYS: epoch, then claim records. ARGV: nonce, claim_ttl_ms, cancelled key prefix, then the dispatches as ti:fence.
local states = {}
for i = 2, #KEYS do
  local member = ARGV[i + 2]
  local record = redis.call('GET', KEYS[i])
  local state, claim_by, holder = 'x', '', ''
  if record then
    state, claim_by, holder = parse(record)
  end
  if state == 'x' then
    redis.call('SET', KEYS[i], 'x||', 'PX', ARGV[2])
    states[#states + 1] = 'unclaimed'
  elseif state == 'r' then
    states[#states + 1] = 'released'
  else
    redis.call('SET', KEYS[i], 'c|' .. claim_by .. '|' .. holder, 'KEEPTTL')
    redis.call('SADD', ARGV[3] .. holder, member)
    redis.call('PEXPIRE', ARGV[3] .. holder, ARGV[2])
    states[#states + 1] = 'held:' .. holder
  end
end
return { epoch, states }
