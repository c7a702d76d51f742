-- Put before every script of the registry.
-- KEYS, the same for all: [1] meta  [2] changes  [3] deadlines  [4] leader  [5] history
--   [6...] one hash per kind.
local META, CHANGES, DEADLINES, LEADER, HISTORY = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local KIND_NAMES = { "Model", "Deployment", "Endpoint", "Tenant", "ApiKey", "Adapter", "Policy", "Profile",
  "EngineSpec", "Engine", "Rollout", "RolloutStatus",
  "Pool", "Replica", "ScalingStatus", "Drain" }
local ENDPOINT, API_KEY, ROLLOUT_STATUS, REPLICA, SCALING_STATUS, DRAIN = 3, 5, 12, 14, 15, 16

local function kind_key(index) return KEYS[5 + index] end

local function now_ms()
  local time = redis.call("TIME")
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function text(number) return string.format("%.0f", number) end

local function version_now() return tonumber(redis.call("HGET", META, "version") or "0") end

-- True when somebody else leads. An empty holder writes unfenced; a lapsed claim nobody took still holds.
local function fenced(holder, token)
  if holder == "" then return false end
  local leader = redis.call("HMGET", LEADER, "holder", "token")
  return leader[1] ~= holder or leader[2] ~= token
end

-- Appends one record for `changes` ({{op, kind, name, document}, ...}) and moves the version on.
-- `previous` links a record to the one before it: a reader of another history sees that it is one.
local function record(changes, floor, max_changes)
  local version = math.max(version_now(), floor) + 1
  if redis.call("HEXISTS", META, "lineage") == 0 then
    local time = redis.call("TIME")
    redis.call("HSET", META, "lineage", time[1] .. "." .. time[2])
  end
  local id = redis.call("XADD", CHANGES, "MAXLEN", "~", max_changes, "*",
    "version", text(version),
    "lineage", redis.call("HGET", META, "lineage"),
    "previous", redis.call("HGET", META, "last") or "0-0",
    "changes", cjson.encode(changes))
  redis.call("HSET", META, "version", text(version), "last", id)
  return version
end
