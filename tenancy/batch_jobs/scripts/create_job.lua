-- Makes a job that waits for its validation.
-- ARGV [1] id [2] input file [3] unfinished jobs a tenant may have [4] completion window, ms
--      [5] what was asked, JSON
-- Returns "ok" | "no file" | "too many".
if not redis.call("ZSCORE", FILES_OF, ARGV[2]) then return "no file" end
if redis.call("SCARD", OPEN_OF) >= tonumber(ARGV[3]) then return "too many" end
local now = now_ms()
redis.call("HSET", JOB, "asked", ARGV[5], "input_file", ARGV[2], "status", "validating", "stop", "",
  "created_ms", text(now), "expires_ms", text(now + tonumber(ARGV[4])))
redis.call("ZADD", WORK, 0, "validate")
redis.call("ZADD", ACTIVE, text(now), ARGV[1])
redis.call("ZADD", JOBS_OF, text(now_us()), ARGV[1])
redis.call("SADD", OPEN_OF, ARGV[1])
redis.call("HINCRBY", FILE_USERS, ARGV[2], 1)
return "ok"
