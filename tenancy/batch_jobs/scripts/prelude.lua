-- Put before every script about one job.
-- KEYS: [1] job [2] work [3] holders [4] rows [5] segments  [6] active [7] job-ends [8] jobs-of [9] open-of
--       [10] files [11] file-users [12] file-ends [13] files-of
local JOB, WORK, HOLDERS, ROWS, SEGMENTS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local ACTIVE, JOB_ENDS, JOBS_OF, OPEN_OF = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local FILES, FILE_USERS, FILE_ENDS, FILES_OF = KEYS[10], KEYS[11], KEYS[12], KEYS[13]

local function now_ms()
  local time = redis.call("TIME")
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- By this lists are in order: many things are made within a millisecond.
local function now_us()
  local time = redis.call("TIME")
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function text(number) return string.format("%.0f", number) end

local function job(field) return redis.call("HGET", JOB, field) or "" end

-- Whether `holder` still has the claim on `part`. A lapsed claim that nobody took still holds.
local function holds(part, holder) return redis.call("HGET", HOLDERS, part) == holder end

-- Takes `part` off the work; when no work is left, what was recorded is to be put together.
local function done(part, now)
  redis.call("ZREM", WORK, part)
  redis.call("HDEL", HOLDERS, part)
  if redis.call("ZCARD", WORK) > 0 then return end
  redis.call("ZADD", WORK, 0, "assemble")
  if job("stop") == "" then
    redis.call("HSET", JOB, "status", "finalizing", "finalizing_ms", text(now))
  end
end

-- Ends the job: nothing of it is claimed or recorded any more.
local function finish(id, status, now, retention_ms)
  redis.call("HSET", JOB, "status", status, status .. "_ms", text(now))
  redis.call("DEL", WORK, HOLDERS, ROWS, SEGMENTS)
  redis.call("ZREM", ACTIVE, id)
  redis.call("SREM", OPEN_OF, id)
  redis.call("ZADD", JOB_ENDS, text(now + retention_ms), id)
  local input = job("input_file")
  if redis.call("HINCRBY", FILE_USERS, input, -1) <= 0 then redis.call("HDEL", FILE_USERS, input) end
end

local function add_file(id, document, expires_ms)
  redis.call("HSET", FILES, id, document)
  redis.call("ZADD", FILE_ENDS, expires_ms, id)
  redis.call("ZADD", FILES_OF, text(now_us()), id)
end
