-- Claims or prolongs leadership.
-- ARGV[1] holder, unique to a process   [2] for how many ms
-- Returns {fencing token, holder}: token 0 when another holds it. Tokens only grow, also after data loss,
-- because they are never below Redis time.
local leader = redis.call("HMGET", LEADER, "holder", "token", "until_ms")
local holder, token, until_ms = leader[1], tonumber(leader[2] or "0"), tonumber(leader[3] or "0")
local now = now_ms()
if holder ~= ARGV[1] then
  if holder and until_ms > now then return { 0, holder } end
  token = math.max(token + 1, now)
end
redis.call("HSET", LEADER, "holder", ARGV[1], "token", text(token), "until_ms", text(now + tonumber(ARGV[2])))
return { token, ARGV[1] }
