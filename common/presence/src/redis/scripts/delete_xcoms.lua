-- KEYS: the run's set of XCom keys. Drops some; returns whether there may be more.
local keys = redis.call('SPOP', KEYS[1], 500)
if #keys > 0 then
  redis.call('UNLINK', unpack(keys))
end
return #keys == 500 and 1 or 0
