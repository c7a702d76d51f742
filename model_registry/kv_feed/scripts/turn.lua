-- Takes or keeps the turn to read one server's KV events, and tells the others what was read.
-- KEYS[1] reader hash   KEYS[2] changes stream
-- ARGV: worker, lease ms (0: it leaves), change ("": none), most changes kept, ms that keys outlive a reading
-- Returns 1 when it is this worker's turn, else 0; and how long ago the server was last read, ms, or -1.
local t = redis.call("TIME")
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local held = redis.call("HMGET", KEYS[1], "worker", "until_ms", "read_ms")
if held[1] and held[1] ~= ARGV[1] and tonumber(held[2]) > now then
  return {0, held[3] and now - tonumber(held[3]) or -1}
end
if tonumber(ARGV[2]) == 0 then
  if held[1] == ARGV[1] then
    redis.call("HSET", KEYS[1], "until_ms", 0)
  end
  return {0, -1}
end
redis.call("HSET", KEYS[1], "worker", ARGV[1], "until_ms", now + tonumber(ARGV[2]))
if held[1] == ARGV[1] then
  redis.call("HSET", KEYS[1], "read_ms", now)
end
if ARGV[3] ~= "" then
  redis.call("XADD", KEYS[2], "MAXLEN", "~", ARGV[4], "*", "change", ARGV[3])
end
redis.call("PEXPIRE", KEYS[1], ARGV[5])
redis.call("PEXPIRE", KEYS[2], ARGV[5])
return {1, 0}
