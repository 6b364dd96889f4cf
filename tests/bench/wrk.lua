-- One POST after the other, each with the next token; at the end one line of JSON.
local tokens = {}
for line in io.lines("TOKENS") do tokens[#tokens + 1] = line end
local body = BODY
local number = 0

request = function()
  local headers = {["content-type"] = "application/json"}
  if #tokens > 0 then
    number = number % #tokens + 1
    headers["authorization"] = "Bearer " .. tokens[number]
  end
  return wrk.format("POST", nil, headers, body)
end

-- As people come: each connection thinks for a while, THINK milliseconds in the mean, before it asks again.
if THINK > 0 then
  delay = function() return math.floor(-math.log(1 - math.random()) * THINK) end
end

done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\nJSON {"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    e.connect + e.read + e.write + e.status + e.timeout))
end
