-- Makes a file known whose content is whole on disk.
-- ARGV [1] id [2] document [3] created, ms [4] expires, ms [5] files a tenant may have
-- Returns "ok" | "too many".
if redis.call("ZCARD", FILES_OF) >= tonumber(ARGV[5]) then return "too many" end
redis.call("HSET", FILES, ARGV[1], ARGV[2])
redis.call("ZADD", FILE_ENDS, ARGV[4], ARGV[1])
redis.call("ZADD", FILES_OF, ARGV[3], ARGV[1])
return "ok"
