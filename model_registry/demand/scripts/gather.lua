-- Reads all reports. KEYS as in report.lua. Returns Redis' clock in ms, the workers' reports, and the counts
-- of ended workers by name, flat.
local time = redis.call("TIME")
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
return { now, redis.call("HVALS", KEYS[1]), redis.call("HGETALL", KEYS[3]) }
