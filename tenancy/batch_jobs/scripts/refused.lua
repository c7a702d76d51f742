-- The input is not in order: the job fails before any row ran.
-- ARGV [1] holder [2] id [3] errors, JSON [4] how long to remember the job, ms
-- Returns "ok" | "lost".
if not holds("validate", ARGV[1]) then return "lost" end
redis.call("HSET", JOB, "errors", ARGV[3])
finish(ARGV[2], "failed", now_ms(), tonumber(ARGV[4]))
return "ok"
