-- Ends a build.
-- ARGV [1] id [2] holder [3] succeeded|failed|cancelled [4] error, JSON, or "" [5] how long to remember it, ms
-- Returns "ok" | "lost". Saying it again, after an answer that got lost, changes nothing.
if build("state") == ARGV[3] and build("ended_by") == ARGV[2] then return "ok" end
if not holds(ARGV[2]) then return "lost" end
if ARGV[4] == "" then
  redis.call("HDEL", BUILD, "error")
else
  redis.call("HSET", BUILD, "error", ARGV[4])
end
finish(ARGV[1], ARGV[3], now_ms(), tonumber(ARGV[5]))
return "ok"
