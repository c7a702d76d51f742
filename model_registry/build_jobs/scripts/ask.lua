-- Makes a build that waits for a builder, unless one of the same engine goes on.
-- ARGV [1] id [2] engine digest [3] what is asked for, JSON
-- Returns the id of the build: the new one's, or that of the one that goes on.
local going_on = redis.call("HGET", BY_DIGEST, ARGV[2])
if going_on then return going_on end
local now = now_ms()
redis.call("HSET", BUILD, "asked", ARGV[3], "digest", ARGV[2], "state", "queued", "created_ms", text(now),
  "queued_ms", text(now))
redis.call("HSET", BY_DIGEST, ARGV[2], ARGV[1])
redis.call("ZADD", BUILDS, text(now), ARGV[1])
redis.call("ZADD", OPEN, text(now), ARGV[1])
return ARGV[1]
