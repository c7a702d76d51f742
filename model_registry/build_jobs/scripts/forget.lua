-- Forgets a build whose time is over.  ARGV [1] id
-- Returns 1, or 0 when it is not yet time.
local until_ms = redis.call("ZSCORE", ENDED, ARGV[1])
if not until_ms or tonumber(until_ms) > now_ms() then return 0 end
redis.call("DEL", BUILD, LOG)
redis.call("ZREM", BUILDS, ARGV[1])
redis.call("ZREM", ENDED, ARGV[1])
return 1
