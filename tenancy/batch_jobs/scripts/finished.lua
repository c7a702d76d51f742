-- Ends a job whose files are whole on disk, and makes the files known with it.
-- ARGV [1] holder [2] id [3] how long to remember the job, ms
--      then for the output and the error file: field of the job, id, document, expires in ms
-- Returns "ok" | "lost".
if not holds("assemble", ARGV[1]) then return "lost" end
for i = 4, #ARGV, 4 do
  redis.call("HSET", JOB, ARGV[i], ARGV[i + 1])
  add_file(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
end
local stop = job("stop")
finish(ARGV[2], stop == "" and "completed" or stop, now_ms(), tonumber(ARGV[3]))
return "ok"
