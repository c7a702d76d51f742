-- A builder says that it lives, and how far it is.
-- ARGV [1] id [2] holder [3] for how many ms more it holds [4] progress, JSON, or "" [5] lines to keep
--      then for each new line of the log: step, text
-- Returns "ok" | "cancel" (still held; somebody asked for its end) | "lost".
if not holds(ARGV[2]) then return "lost" end
redis.call("ZADD", OPEN, text(now_ms() + tonumber(ARGV[3])), ARGV[1])
if ARGV[4] ~= "" then redis.call("HSET", BUILD, "progress", ARGV[4]) end
for i = 6, #ARGV, 2 do
  redis.call("XADD", LOG, "MAXLEN", "~", ARGV[5], "*", "step", ARGV[i], "text", ARGV[i + 1])
end
return build("cancel") == "" and "ok" or "cancel"
