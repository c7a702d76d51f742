-- Asks for the end of a build: one that waits has ended with it, one that runs is ended by its builder.
-- ARGV [1] id [2] how long to remember the build, ms
-- Returns the state it had, "" for an unknown build; one that has ended is left alone.
local state = build("state")
if state == "queued" then
  finish(ARGV[1], "cancelled", now_ms(), tonumber(ARGV[2]))
elseif state == "running" then
  redis.call("HSET", BUILD, "cancel", "1")
end
return state
