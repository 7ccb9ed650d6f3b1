-- KEYS: epoch, held, cancelled, then claim records. ARGV: nonce, incarnation, slack_ms, then the dispatches as ti:fence.
local now = now_ms()
for i = 4, #KEYS do
  local record = redis.call('GET', KEYS[i])
  if record then
    local state, claim_by, holder = parse(record)
    if holder == ARGV[2] and (state == 'h' or state == 'c') then
      -- After claim_by a redelivery is late, so from then on nothing needs this record.
      local ttl = math.min(math.max(tonumber(claim_by) - now, 0) + ARGV[3], 315360000000)
      redis.call('SET', KEYS[i], 'r|' .. claim_by .. '|' .. holder, 'PX', int(ttl))
    end
  end
  redis.call('SREM', KEYS[2], ARGV[i])
  redis.call('SREM', KEYS[3], ARGV[i])
end
return 1
