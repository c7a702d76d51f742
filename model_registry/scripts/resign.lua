-- Gives leadership up, if still held.
-- ARGV[1] holder   [2] token
-- Returns 1 when it was held.
if fenced(ARGV[1], ARGV[2]) then return 0 end
redis.call("HSET", LEADER, "until_ms", "0")
redis.call("HSET", LEADER, "holder", "")
return 1
