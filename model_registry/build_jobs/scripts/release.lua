-- Gives a build back: others may take it, at once or later.
-- ARGV [1] id [2] holder [3] in how many ms [4] 1: the attempt counts [5] why, JSON, or ""
--      [6] attempts that a build has [7] how long to remember the build, ms
-- Returns "ok" | "lost".
if not holds(ARGV[2]) then return "lost" end
local now = now_ms()
if ARGV[5] ~= "" then redis.call("HSET", BUILD, "error", ARGV[5]) end
if build("cancel") ~= "" then
  finish(ARGV[1], "cancelled", now, tonumber(ARGV[7]))
  return "ok"
end
if ARGV[4] == "0" then
  redis.call("HINCRBY", BUILD, "attempts", -1)
elseif tonumber(build("attempts")) >= tonumber(ARGV[6]) then
  finish(ARGV[1], "failed", now, tonumber(ARGV[7]))
  return "ok"
end
move("queued", now)
redis.call("HDEL", BUILD, "holder")
redis.call("ZADD", OPEN, text(now + tonumber(ARGV[3])), ARGV[1])
return "ok"
