-- One page of a tenant's index.
-- KEYS [1] index [2] files   ARGV [1] after, "" for the first page [2] limit [3] asc|desc [4] purpose or ""
-- Returns {1 when there is more, id...}, or nil when `after` is not in the index.
local descending, limit = ARGV[3] == "desc", tonumber(ARGV[2])
local at = 0
if ARGV[1] ~= "" then
  local rank = redis.call(descending and "ZREVRANK" or "ZRANK", KEYS[1], ARGV[1])
  if not rank then return nil end
  at = rank + 1
end
local reply = { 0 }
while true do
  local ids = redis.call(descending and "ZREVRANGE" or "ZRANGE", KEYS[1], at, at + 99)
  if #ids == 0 then return reply end
  for _, id in ipairs(ids) do
    local wanted = true
    if ARGV[4] ~= "" then
      local document = redis.call("HGET", KEYS[2], id)
      wanted = document and cjson.decode(document).purpose == ARGV[4]
    end
    if wanted then
      if #reply > limit then
        reply[1] = 1
        return reply
      end
      reply[#reply + 1] = id
    end
  end
  at = at + #ids
end
