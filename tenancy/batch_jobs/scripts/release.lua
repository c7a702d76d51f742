-- Gives a claim back with work left: others may take it at once.  ARGV [1] part [2] holder
-- Returns "ok" | "lost".
if not holds(ARGV[1], ARGV[2]) then return "lost" end
redis.call("HDEL", HOLDERS, ARGV[1])
redis.call("ZADD", WORK, 0, ARGV[1])
return "ok"
