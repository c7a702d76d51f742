-- A worker reports on its slices: what it keeps, what it asks for, what it uses. No more is granted than the
-- total leaves beside what others hold.
-- KEYS [1] beat [2] workers [3] news [4...] resources
-- ARGV [1] worker [2] number of the report [3] lease in ms, 0: the worker leaves [4] gossip or ""
--      then eleven for each resource: name, total, window in ms, keep, ask, first, used, demand, weight,
--      ms until a part is free again, 1: urgent.
--      first: what a worker that was never answered may hold while nothing new is granted.
-- Returns {rank from 0, workers, ms for which nothing new is granted, for each resource {held, {worker,
-- "used demand weight held free-in-ms", ...}}}.
local PER_RESOURCE = 11
local NEWS_KEPT = 1024
local time = redis.call("TIME")
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function text(number) return string.format("%.0f", number) end

local worker, number, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

-- Nobody was heard for a lease: Redis was away, or has lost what it knew. Workers may hold slices that it does
-- not know of, so for two leases each one keeps what it has.
local beat = redis.call("HMGET", KEYS[1], "last", "settles")
local last, settles = tonumber(beat[1] or 0), tonumber(beat[2] or 0)
local pause = math.max(lease, 1)
if lease > 0 then
  if now - last > pause then settles = now + 2 * pause end
  redis.call("HSET", KEYS[1], "last", text(now), "settles", text(settles))
  redis.call("ZADD", KEYS[2], text(now), worker)
  redis.call("ZREMRANGEBYSCORE", KEYS[2], "-inf", text(now - pause))
else
  redis.call("ZREM", KEYS[2], worker)
end
if ARGV[4] ~= "" then
  redis.call("XADD", KEYS[3], "MAXLEN", "~", NEWS_KEPT, "*", "worker", worker, "gossip", ARGV[4])
end

local workers, rank = redis.call("ZRANGE", KEYS[2], 0, -1), 0
for _, name in ipairs(workers) do
  if name < worker then rank = rank + 1 end
end
local reply = { rank, #workers, math.max(0, settles - now) }
for i = 4, #KEYS do
  local at = 5 + (i - 4) * PER_RESOURCE
  local name, total, window = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local keep, ask, first = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  local used, demand, weight = ARGV[at + 6], ARGV[at + 7], ARGV[at + 8]
  local free_in, urgent = ARGV[at + 9], ARGV[at + 10] == "1"
  local others, seen, fresh = 0, {}, true
  local entries = redis.call("HGETALL", KEYS[i])
  for e = 1, #entries, 2 do
    local held, lapses, told, entry_used, entry_demand, entry_weight, entry_free =
      string.match(entries[e + 1], "^(%d+) (%d+) (%d+) (%d+) (%d+) ([%d.]+) (%d+)$")
    if tonumber(lapses) <= now then
      redis.call("HDEL", KEYS[i], entries[e])
    elseif entries[e] == worker then
      fresh = tonumber(told) < number
    else
      others = others + tonumber(held)
      seen[#seen + 1] = entries[e]
      seen[#seen + 1] = table.concat({ entry_used, entry_demand, entry_weight, held, entry_free }, " ")
    end
  end
  local held = 0
  if fresh then
    local wanted = keep + ask
    if now < settles then wanted = math.max(keep, math.min(wanted, first)) end
    held = math.max(0, math.min(wanted, total - others))
    if held == 0 and tonumber(demand) == 0 and lease == 0 then
      redis.call("HDEL", KEYS[i], worker)
    else
      local entry = { text(held), text(now + lease + window), text(number), used, demand, weight, free_in }
      redis.call("HSET", KEYS[i], worker, table.concat(entry, " "))
      redis.call("PEXPIRE", KEYS[i], text(2 * (pause + window)))
    end
    if urgent and held < wanted then
      redis.call("XADD", KEYS[3], "MAXLEN", "~", NEWS_KEPT, "*", "worker", worker, "short", name, "demand", demand)
    end
  end
  reply[#reply + 1] = { held, seen }
end
return reply
