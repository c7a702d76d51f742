-- Reads every worker's report. KEYS[1] the rollout's evidence
-- Returns Redis' clock in ms, then one value for each worker.
local t = redis.call("TIME")
local now = t[1] * 1000 + math.floor(t[2] / 1000)
return { now, redis.call("HVALS", KEYS[1]) }
