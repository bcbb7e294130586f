-- Stores replicated assignments, atomically. An order that has a courier already keeps it.

local orders, -- hash: order -> courier, empty while it is parked
  replicated, -- hash: order -> courier
  assigned = -- sorted set, lexical: courier::order, and courier:count:order of those assigned here
  unpack(KEYS)

-- ARGV: pairs of order and courier.
for i = 1, #ARGV, 2 do
  local order, courier = ARGV[i], ARGV[i + 1]
  local is_assigned = (redis.call('HGET', orders, order) or '') ~= ''
  if not is_assigned and redis.call('HSETNX', replicated, order, courier) == 1 then
    redis.call('ZADD', assigned, '0', courier .. '::' .. order)
  end
end
