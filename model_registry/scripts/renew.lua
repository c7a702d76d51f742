-- Lets endpoints live longer. Nothing a reader sees changes, so no version is spent.
-- ARGV[1] time to live in ms   [2] leadership's holder or ""   [3] its token   [4...] names
-- Returns {"ok", Redis time in ms, names that are not registered ...} | {"fenced"}.
if fenced(ARGV[2], ARGV[3]) then return { "fenced" } end
local now = now_ms()
local reply = { "ok", now }
for i = 4, #ARGV do
  if redis.call("HEXISTS", kind_key(ENDPOINT), ARGV[i]) == 1 then
    redis.call("ZADD", DEADLINES, text(now + tonumber(ARGV[1])), ARGV[i])
  else
    reply[#reply + 1] = ARGV[i]
  end
end
return reply
