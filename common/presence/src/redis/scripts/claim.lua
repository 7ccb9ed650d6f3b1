-- KEYS: epoch, lease, held, then one claim record per request.
-- ARGV: nonce, incarnation, claim_ttl_ms, slack_ms, then per request: ti:fence, epoch, claim_by_ms.
local now = now_ms()
local lease = redis.call('HMGET', KEYS[2], 'epoch', 'revoked')
local leased = lease[1] == epoch and not lease[2]
local granted = false
local answers = {}
for i = 4, #KEYS do
  local at = 5 + (i - 4) * 3
  local record = redis.call('GET', KEYS[i])
  local answer
  -- What is on record comes first: it is true whatever the epoch, and the only proof that somebody has it.
  if record then
    local state, _, holder = parse(record)
    answer = state == 'x' and 'cancelled' or 'claimed:' .. holder
  elseif ARGV[at + 1] ~= epoch then
    answer = 'epoch'
  elseif not leased then
    answer = 'lease'
  elseif now > tonumber(ARGV[at + 2]) then
    answer = 'late'
  else
    -- Ten years bound what a nonsensical claim_by can do.
    local ttl = math.min(math.max(tonumber(ARGV[3]), ARGV[at + 2] - now + ARGV[4]), 315360000000)
    redis.call('SET', KEYS[i], 'h|' .. ARGV[at + 2] .. '|' .. ARGV[2], 'PX', int(ttl))
    redis.call('SADD', KEYS[3], ARGV[at])
    granted = true
    answer = 'granted'
  end
  answers[#answers + 1] = answer
end
if granted then
  redis.call('PEXPIRE', KEYS[3], ARGV[3])
end
return { epoch, answers }
