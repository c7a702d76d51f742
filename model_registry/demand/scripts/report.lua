-- Stores one worker's report in place of its last one, and adds up what workers had counted that have ended.
-- KEYS [1] reports [2] workers [3] ended [4] calls
-- ARGV [1] worker [2] report as JSON [3] 1: earlier reports of it were answered [4] 1: it ends with this
--      [5] 1: tell who listens at once [6] ms without a report after which a worker has ended
--      [7] ms that keys, and counts of what nobody tells of any more, outlive the last report
--      [8] names of the counts, as JSON: {"groups": [...], "endpoints": [...]}
--      [9] workers that have ended for certain, as JSON; under their own names, or those with "." and more
-- Returns 0, and stores nothing, where the worker was taken for ended: what it had counted is added up already.
local CALLS_KEPT, AT_ONCE = 64, 32
local time = redis.call("TIME")
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local worker, ends = ARGV[1], ARGV[4] == "1"
if ARGV[3] == "1" and redis.call("HEXISTS", KEYS[1], worker) == 0 then return 0 end
redis.call("HSET", KEYS[1], worker, string.format("%.0f %s", now, ARGV[2]))
redis.call("ZADD", KEYS[2], ends and "0" or string.format("%.0f", now), worker)

local names = cjson.decode(ARGV[8])
local function documents(of, each)
  local stored = of and redis.call("HGET", KEYS[1], of)
  local good, told = pcall(cjson.decode, string.match(stored or "", "^%d+ (.*)$") or "")
  if not good or type(told) ~= "table" then return end
  for kind, counts in pairs(names) do
    if type(told[kind]) == "table" then
      for name, one in pairs(told[kind]) do each(kind .. "|" .. name .. "|", counts, one) end
    end
  end
end

for _, ended in ipairs(cjson.decode(ARGV[9])) do
  for _, one in ipairs(redis.call("HKEYS", KEYS[1])) do
    if one == ended or string.sub(one, 1, #ended + 1) == ended .. "." then redis.call("ZADD", KEYS[2], "0", one) end
  end
end

local gone = redis.call("ZRANGEBYSCORE", KEYS[2], "-inf", string.format("%.0f", now - tonumber(ARGV[6])), "LIMIT", 0, AT_ONCE)
for _, ended in ipairs(gone) do
  documents(ended, function(prefix, counts, one)
    for _, count in ipairs(counts) do
      local value = type(one) == "table" and tonumber(one[count]) or 0
      if value ~= 0 then redis.call("HINCRBYFLOAT", KEYS[3], prefix .. count, string.format("%.17g", value)) end
    end
    redis.call("HSET", KEYS[3], prefix .. "at", string.format("%.0f", now))
  end)
  redis.call("HDEL", KEYS[1], ended)
  redis.call("ZREM", KEYS[2], ended)
end

if #gone > 0 then
  -- Names that no worker tells of are forgotten in time: models and endpoints come and go.
  local told = {}
  for _, one in ipairs(redis.call("HKEYS", KEYS[1])) do
    documents(one, function(prefix) told[prefix] = true end)
  end
  local kept = redis.call("HGETALL", KEYS[3])
  for i = 1, #kept, 2 do
    local prefix = string.match(kept[i], "^(.*|)at$")
    if prefix and not told[prefix] and tonumber(kept[i + 1]) < now - tonumber(ARGV[7]) then
      redis.call("HDEL", KEYS[3], kept[i])
      for _, counts in pairs(names) do
        for _, count in ipairs(counts) do redis.call("HDEL", KEYS[3], prefix .. count) end
      end
    end
  end
end

if ARGV[5] == "1" then redis.call("XADD", KEYS[4], "MAXLEN", "~", CALLS_KEPT, "*", "worker", worker) end
for _, key in ipairs(KEYS) do redis.call("PEXPIRE", key, ARGV[7]) end
return 1
