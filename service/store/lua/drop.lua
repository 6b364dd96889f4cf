-- Take sessions or leases off the live ones.
--
-- KEYS: live
-- ARGV: their names
local lines = read(KEYS[1])
local left = lines
for _, name in ipairs(ARGV) do left = take(left, name) end
if left ~= lines then write(KEYS[1], left) end
