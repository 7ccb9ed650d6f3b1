-- Common to every script. KEYS[1] is the epoch's hash, ARGV[1] a fresh random number from the caller.

-- The epoch that holds now. It is bound to the life of the server process: after a restart (or on a promoted replica)
-- INFO's run_id differs from the stored one, however much of the old data is there, and the epoch changes before
-- anything else is read. 64-bit numbers stay strings: Lua's are doubles.
local function current_epoch()
  local life = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  local stored = redis.call('HMGET', KEYS[1], 'epoch', 'run_id')
  if stored[1] and stored[2] == life then
    return stored[1]
  end
  redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'run_id', life)
  return ARGV[1]
end

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- An integer as Redis takes it: Lua would write large ones as 1e+14.
local function int(n)
  return string.format('%.0f', n)
end

-- A claim's record: state, claim_by (text), incarnation.
local function parse(record)
  return string.match(record, '^(%a)|(%-?%d*)|(.*)$')
end

local epoch = current_epoch()
