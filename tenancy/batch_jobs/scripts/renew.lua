-- Prolongs a claim.  ARGV [1] part [2] holder [3] for how many ms
-- Returns "ok" | "stop" (still held; start nothing more) | "lost".
if not holds(ARGV[1], ARGV[2]) then return "lost" end
redis.call("ZADD", WORK, text(now_ms() + tonumber(ARGV[3])), ARGV[1])
return job("stop") == "" and "ok" or "stop"
