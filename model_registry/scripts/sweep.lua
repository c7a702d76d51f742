-- Removes endpoints whose deadline has passed by Redis time.
-- ARGV[1] only deadlines that had passed at this Redis time in ms, "" for now   [2] records to keep
--     [3] leadership's holder or ""   [4] its token
-- Returns {"ok", names removed ...} | {"fenced"}. At most 1000 go at once.
if fenced(ARGV[3], ARGV[4]) then return { "fenced" } end
local cutoff = now_ms()
if ARGV[1] ~= "" then cutoff = math.min(cutoff, tonumber(ARGV[1])) end
local names = redis.call("ZRANGEBYSCORE", DEADLINES, "-inf", text(cutoff), "LIMIT", 0, 1000)
local changes, reply = {}, { "ok" }
for _, name in ipairs(names) do
  redis.call("ZREM", DEADLINES, name)
  if redis.call("HDEL", kind_key(ENDPOINT), name) == 1 then
    changes[#changes + 1] = { "del", KIND_NAMES[ENDPOINT], name, "" }
    reply[#reply + 1] = name
  end
end
if #changes > 0 then record(changes, 0, ARGV[2]) end
return reply
