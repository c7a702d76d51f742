-- Changes objects: all of them or none.
-- ARGV[1] lineage and [2] version the writer has read, both "" to skip that check
--     [3] versions begin above this   [4] records to keep
--     [5] leadership's holder, "" to write unfenced   [6] its token
--     [7] time to live in ms of the endpoints put, "" to leave deadlines alone
--     [8] versions to keep of each declared object
--     then four per operation: op, kind's index, name, document
--       need: the object must exist          same: its document must be this one
--       put: store                           del: remove
--       held: the build called by this name, whose hash is the last of KEYS, must have this holder
-- Returns {"ok", version} | {"stale"} | {"fenced"} | {"missing", kind, name} | {"changed", kind, name}
--       | {"lost"}.
-- What is stored already or absent already is not recorded; with nothing to record the version stays.

-- Keeps what an object has become, and, where nothing was kept yet, what it was. Endpoints and
-- replicas and drains come and go, statuses move every few seconds, and a deleted key may not come back: of these nothing
-- is kept.
local function keep(write, before, version, most)
  local op, index, name, document, stored = write[1], write[2], write[3], write[4], write[5]
  if index == ENDPOINT or index == ROLLOUT_STATUS or index == REPLICA or index == SCALING_STATUS
    or index == DRAIN then return end
  local field = KIND_NAMES[index] .. "/" .. name
  if index == API_KEY and op == "del" then
    redis.call("HDEL", HISTORY, field)
    return
  end
  local kept = redis.call("HGET", HISTORY, field)
  local versions = kept and cjson.decode(kept) or stored and { { text(before), "", stored } } or {}
  versions[#versions + 1] = { text(version), text(now_ms()), op == "put" and document or "" }
  while #versions > most do table.remove(versions, 1) end
  redis.call("HSET", HISTORY, field, cjson.encode(versions))
end

if fenced(ARGV[5], ARGV[6]) then return { "fenced" } end
if ARGV[2] ~= "" then
  local lineage = redis.call("HGET", META, "lineage") or ""
  if lineage ~= ARGV[1] or text(version_now()) ~= ARGV[2] then return { "stale" } end
end

local writes = {}
for i = 9, #ARGV, 4 do
  local op, index, name, document = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3]
  local stored = op ~= "held" and redis.call("HGET", kind_key(index), name)
  if op == "need" then
    if not stored then return { "missing", KIND_NAMES[index], name } end
  elseif op == "same" then
    if stored ~= document then return { "changed", KIND_NAMES[index], name } end
  elseif op == "held" then
    if redis.call("HGET", KEYS[#KEYS], "holder") ~= document then return { "lost" } end
  else
    writes[#writes + 1] = { op, index, name, document, stored }
  end
end

local changes, changed = {}, {}
for _, write in ipairs(writes) do
  local op, index, name, document, stored = write[1], write[2], write[3], write[4], write[5]
  if op == "put" then
    if index == ENDPOINT and ARGV[7] ~= "" then
      redis.call("ZADD", DEADLINES, text(now_ms() + tonumber(ARGV[7])), name)
    end
    if stored ~= document then
      redis.call("HSET", kind_key(index), name, document)
      changes[#changes + 1] = { "put", KIND_NAMES[index], name, document }
      changed[#changed + 1] = write
    end
  elseif stored then
    redis.call("HDEL", kind_key(index), name)
    if index == ENDPOINT then redis.call("ZREM", DEADLINES, name) end
    changes[#changes + 1] = { "del", KIND_NAMES[index], name, "" }
    changed[#changed + 1] = write
  end
end
local before = version_now()
if #changes == 0 then return { "ok", before } end
local version = record(changes, tonumber(ARGV[3]), ARGV[4])
for _, write in ipairs(changed) do keep(write, before, version, tonumber(ARGV[8])) end
return { "ok", version }
