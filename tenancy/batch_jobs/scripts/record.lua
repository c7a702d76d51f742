-- Records the rows of one segment, which is whole on disk: from here on, and only from here on, they are done.
-- ARGV [1] part [2] holder [3] claim's length, ms [4] segment
--      [5] completed [6] failed [7] input, [8] output and [9] cached tokens [10] 1: the slice is done
--      then the rows
-- Returns "ok" | "lost" | "twice". Saying it again, after an answer that got lost, changes nothing.
if redis.call("HEXISTS", SEGMENTS, ARGV[4]) == 1 then return "ok" end
if not holds(ARGV[1], ARGV[2]) then return "lost" end
for i = 11, #ARGV do
  if redis.call("GETBIT", ROWS, ARGV[i]) == 1 then return "twice" end
end
for i = 11, #ARGV do redis.call("SETBIT", ROWS, ARGV[i], 1) end
redis.call("HSET", SEGMENTS, ARGV[4], text(#ARGV - 10))
for i, field in ipairs({ "completed", "failed", "input_tokens", "output_tokens", "cached_tokens" }) do
  redis.call("HINCRBY", JOB, field, ARGV[4 + i])
end
local now = now_ms()
if ARGV[10] == "1" then
  done(ARGV[1], now)
else
  redis.call("ZADD", WORK, text(now + tonumber(ARGV[3])), ARGV[1])
end
return "ok"
