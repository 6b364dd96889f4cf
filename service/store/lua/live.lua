-- A user's live sessions and the leases of mints under way: one string, each entry a line led by a newline, name|…
-- This stands before every script that reads it.
local there
local function read(key)
  there = redis.call('GET', key)
  return there or ''
end

-- Write the lines; they stand at least so many seconds, or (nil) as long as they would have.
local function write(key, lines, stands)
  if lines == '' then
    redis.call('DEL', key)
  elseif stands and (not there or redis.call('TTL', key) < stands) then
    redis.call('SET', key, lines, 'EX', stands)
  else
    redis.call('SET', key, lines, 'KEEPTTL')
  end
end

-- Return the lines without one entry, and what stands behind its name; no second value where there is no such entry.
local function take(lines, name)
  -- A name comes from a URL now and then: it must not match across what separates.
  if string.find(name, '[|\n]') then return lines end
  local first, last = string.find(lines, '\n' .. name .. '|', 1, true)
  if not first then return lines end
  local stop = string.find(lines, '\n', last, true) or #lines + 1
  return string.sub(lines, 1, first - 1) .. string.sub(lines, stop), string.sub(lines, last + 1, stop - 1)
end

-- The time (ms), as it stands in queue entries.
local function now_ms()
  local time = redis.call('TIME')
  return string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end

-- For each line: name, end (s), and the rest from the separator on.
local ENTRY = '\n([^|\n]+)|(%d+)([^\n]*)'
