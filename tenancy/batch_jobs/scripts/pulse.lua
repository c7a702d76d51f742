-- A worker reports its load and hears of the others.
-- KEYS [1] workers [2] worker-seen [3] active   ARGV [1] worker [2] report [3] ms after which a report is old
-- Returns {now, {worker, report, ...}, {job id, ...}}.
local time = redis.call("TIME")
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call("HSET", KEYS[1], ARGV[1], ARGV[2])
redis.call("ZADD", KEYS[2], string.format("%.0f", now), ARGV[1])
local old = redis.call("ZRANGEBYSCORE", KEYS[2], "-inf", string.format("(%.0f", now - tonumber(ARGV[3])))
for _, worker in ipairs(old) do
  redis.call("HDEL", KEYS[1], worker)
  redis.call("ZREM", KEYS[2], worker)
end
return { string.format("%.0f", now), redis.call("HGETALL", KEYS[1]), redis.call("ZRANGE", KEYS[3], 0, -1) }
