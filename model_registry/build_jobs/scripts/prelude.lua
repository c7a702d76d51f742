-- Put before every script about one build, after the table NEXT of the states that may follow each other.
-- KEYS: [1] build [2] its log [3] builds [4] builds-open [5] builds-by-digest [6] builds-ended
local BUILD, LOG, BUILDS, OPEN, BY_DIGEST, ENDED = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

local function now_ms()
  local time = redis.call("TIME")
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function text(number) return string.format("%.0f", number) end

local function build(field) return redis.call("HGET", BUILD, field) or "" end

-- Whether `holder` still has the build. A lapsed claim that nobody took still holds.
local function holds(holder) return build("state") == "running" and build("holder") == holder end

-- Moves the build to `state`; an error where that may not follow the present one.
local function move(state, now)
  local present = build("state")
  if not NEXT[present][state] then error("a build cannot go from " .. present .. " to " .. state) end
  redis.call("HSET", BUILD, "state", state, state .. "_ms", text(now))
end

-- Ends the build: nobody can claim it any more, and the same engine can be asked for anew.
local function finish(id, state, now, retention_ms)
  move(state, now)
  redis.call("HSET", BUILD, "ended_by", build("holder"))
  redis.call("HDEL", BUILD, "holder", "cancel")
  redis.call("ZREM", OPEN, id)
  redis.call("HDEL", BY_DIGEST, build("digest"))
  redis.call("ZADD", ENDED, text(now + retention_ms), id)
end
