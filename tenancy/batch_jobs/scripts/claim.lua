-- Gives one part of a job's work to a worker, until its claim lapses.
-- ARGV [1] worker [2] for how many ms [3] slices that may be held at once
-- Returns {} when there is nothing to do, else {part, holder, row...}: rows without a recorded result.
local status, now = job("status"), now_ms()
if status == "" then return {} end
if job("stop") == "" and (status == "validating" or status == "in_progress")
  and now >= tonumber(job("expires_ms")) then
  redis.call("HSET", JOB, "stop", "expired")
end
local free = redis.call("ZRANGEBYSCORE", WORK, "-inf", text(now))
if job("stop") ~= "" then
  for _, part in ipairs(free) do
    if part ~= "assemble" then done(part, now) end
  end
  free = redis.call("ZRANGEBYSCORE", WORK, "-inf", text(now))
end
local part = free[1]
if not part then return {} end
if redis.call("ZCARD", WORK) - #free >= tonumber(ARGV[3]) then return {} end

local holder = ARGV[1] .. "-" .. redis.call("HINCRBY", JOB, "token", 1)
redis.call("ZADD", WORK, text(now + tonumber(ARGV[2])), part)
redis.call("HSET", HOLDERS, part, holder)
local reply = { part, holder }
local number = string.match(part, "^slice:(%d+)$")
if number then
  local size = tonumber(job("slice_rows"))
  local first = tonumber(number) * size
  for row = first, math.min(first + size, tonumber(job("total"))) - 1 do
    if redis.call("GETBIT", ROWS, row) == 0 then reply[#reply + 1] = text(row) end
  end
end
return reply
