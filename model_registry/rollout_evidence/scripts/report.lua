-- Stores one worker's report, in place of its last one.
-- KEYS[1] the rollout's evidence   ARGV: worker, epoch, report as JSON, ms that the key outlives it
-- Reports of an earlier run are dropped; one that comes after a later run has begun is not stored.
local t = redis.call("TIME")
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local epoch = tonumber(ARGV[2])
local stored = redis.call("HGETALL", KEYS[1])
for i = 1, #stored, 2 do
  local other = tonumber(string.match(stored[i + 1], "^%d+ (%d+) "))
  if other and other > epoch then return 0 end
  if other and other < epoch then redis.call("HDEL", KEYS[1], stored[i]) end
end
redis.call("HSET", KEYS[1], ARGV[1], string.format("%.0f %.0f %s", now, epoch, ARGV[3]))
redis.call("PEXPIRE", KEYS[1], ARGV[4])
return 1
