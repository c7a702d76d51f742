-- Reads everything at one version.
-- Returns {Redis time in ms, lineage, version, last change id, then per kind a flat list name, document, ...}.
local meta = redis.call("HMGET", META, "lineage", "version", "last")
local everything = { now_ms(), meta[1] or "", tonumber(meta[2] or "0"), meta[3] or "0-0" }
for index = 1, #KIND_NAMES do
  everything[#everything + 1] = redis.call("HGETALL", kind_key(index))
end
return everything
