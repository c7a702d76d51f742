-- Forgets a file.  ARGV [1] id
-- Returns "ok" | "missing" | "in use". One that another tenant owns is missing.
if not redis.call("ZSCORE", FILES_OF, ARGV[1]) then return "missing" end
if redis.call("HEXISTS", FILE_USERS, ARGV[1]) == 1 then return "in use" end
redis.call("HDEL", FILES, ARGV[1])
redis.call("ZREM", FILE_ENDS, ARGV[1])
redis.call("ZREM", FILES_OF, ARGV[1])
return "ok"
