-- Cancels a job: no further row is started, what runs may be recorded.
-- ARGV [1] errors to show, JSON, or ""
-- Returns the status it had; one that has ended is left alone.
local status = job("status")
if status == "" or status == "completed" or status == "failed" or status == "expired"
  or status == "cancelled" or job("stop") ~= "" then return status end
if status == "finalizing" then return status end
redis.call("HSET", JOB, "stop", "cancelled", "status", "cancelling", "cancelling_ms", text(now_ms()))
if ARGV[1] ~= "" then redis.call("HSET", JOB, "errors", ARGV[1]) end
return status
