-- Makes a file known whose content is whole on disk.
-- ARGV [1] id [2] document [3] expires, ms [4] files a tenant may have
-- Returns "ok" | "too many".
if redis.call("ZCARD", FILES_OF) >= tonumber(ARGV[4]) then return "too many" end
redis.call("HSET", FILES, ARGV[1], ARGV[2])
local time = redis.call("TIME")
redis.call("ZADD", FILE_ENDS, ARGV[3], ARGV[1])
redis.call("ZADD", FILES_OF, string.format("%.0f", time[1] * 1000000 + time[2]), ARGV[1])
return "ok"
