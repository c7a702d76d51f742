-- The input is in order: its rows become slices of work.
-- ARGV [1] holder [2] rows [3] rows in a slice [4] model
-- Returns "ok" | "lost".
if not holds("validate", ARGV[1]) then return "lost" end
local total, size, now = tonumber(ARGV[2]), tonumber(ARGV[3]), now_ms()
redis.call("HSET", JOB, "total", ARGV[2], "slice_rows", ARGV[3], "model", ARGV[4])
if job("stop") == "" then
  redis.call("HSET", JOB, "status", "in_progress", "in_progress_ms", text(now))
end
for number = 0, math.ceil(total / size) - 1 do
  redis.call("ZADD", WORK, 0, string.format("slice:%08d", number))
end
done("validate", now)
return "ok"
