-- Gives a build to a builder, until its claim lapses: one that waits, or one whose builder let it lapse.
-- ARGV [1] id [2] builder [3] for how many ms [4] attempts that a build has
--      [5] error where it has had them, JSON [6] how long to remember the build, ms
-- Returns the holder, or "" when there is nothing to do.
local free_ms = redis.call("ZSCORE", OPEN, ARGV[1])
local now = now_ms()
if not free_ms or tonumber(free_ms) > now then return "" end
if build("cancel") ~= "" then
  finish(ARGV[1], "cancelled", now, tonumber(ARGV[6]))
  return ""
end
-- Also a build whose builder died goes through the queue, so that the table of states holds.
if build("state") == "running" then move("queued", now) end
if tonumber(redis.call("HGET", BUILD, "attempts") or "0") >= tonumber(ARGV[4]) then
  redis.call("HSET", BUILD, "error", ARGV[5])
  finish(ARGV[1], "failed", now, tonumber(ARGV[6]))
  return ""
end
local holder = ARGV[2] .. "-" .. redis.call("HINCRBY", BUILD, "token", 1)
move("running", now)
redis.call("HINCRBY", BUILD, "attempts", 1)
redis.call("HSET", BUILD, "holder", holder, "worker", ARGV[2])
redis.call("ZADD", OPEN, text(now + tonumber(ARGV[3])), ARGV[1])
return holder
