-- Applies events in order, atomically. All keys share one hash tag.
--
-- The decisions are those of dispatch.rs; the tests compare every store with it, event by event.

local couriers, -- hash: courier -> zone, 1 or 0 for available, name; "courier:count" -> orders assigned so far
  orders, -- hash: order -> courier, empty while it is parked
  assigned, -- sorted set, lexical: courier:count:order, and courier::order of replicated ones
  parked, -- sorted set, lexical: zone, time (20 digits), order (36), entry of the log
  log, -- stream: every event, as "outcome", a space, and its entry
  outgoing, -- stream: unpublished assignments, as "order:courier"
  north, south, east, west = unpack(KEYS)
-- Sorted sets: the available couriers of a zone by their count, then by their id.
local turns = { N = north, S = south, E = east, W = west }
-- ARGV: whether assignments are published, the join rule, then four for each event: its kind; its id; zone and time of an order,
-- or zone, availability and name of a courier; its entry: time and JSON.
local publishes, join, FIRST = ARGV[1] == '1', ARGV[2], 3
local call = redis.call

-- Some writes are collected: one command for many events.
local places, of_couriers, counts = {}, {}, {}

local function flush(command, key, values)
  if #values > 0 then
    call(command, key, unpack(values))
  end
end

local function flush_orders()
  flush('HSET', orders, places)
  flush('ZADD', assigned, of_couriers)
  places, of_couriers = {}, {}
end

local known = {} -- order -> courier, empty while it is parked

local function place(order, courier)
  known[order] = courier
  places[#places + 1] = order
  places[#places + 1] = courier
end

local function assign(order, courier, count)
  place(order, courier)
  of_couriers[#of_couriers + 1] = '0'
  -- The count has new members next to one another, where an insertion is cheap.
  of_couriers[#of_couriers + 1] = courier .. ':' .. count .. ':' .. order
  if publishes then
    call('XADD', outgoing, '0-*', 'a', order .. ':' .. courier)
  end
end

local function add_order(order, said, entry)
  if known[order] then
    return 'd' .. known[order]
  end
  local zone = turns[said:sub(1, 1)]
  local courier = call('ZRANGE', zone, '0', '0')[1]
  if not courier then
    place(order, '')
    call('ZADD', parked, '0', said .. order .. entry)
    return 'p'
  end
  counts[courier] = call('ZINCRBY', zone, '1', courier)
  assign(order, courier, counts[courier])
  return 'a' .. courier
end

-- Assigns the parked orders of a zone to its only available courier, who has `count`; returns the new count.
local function unpark(zone, courier, count)
  local beyond = '(' .. string.char(zone:byte() + 1)
  while true do
    local waiting = call('ZRANGE', parked, '[' .. zone, beyond, 'BYLEX', 'LIMIT', '0', '1000')
    if #waiting == 0 then
      return count
    end
    for _, member in ipairs(waiting) do
      count = count + 1
      assign(member:sub(22, 57), courier, count)
    end
    call('ZREM', parked, unpack(waiting))
    flush_orders()
  end
end

local function add_courier(courier, said)
  local zone, is_available = said:sub(1, 1), said:sub(2, 2) == '1'
  local before, count = unpack(call('HMGET', couriers, courier, courier .. ':count'))
  count = counts[courier] or count or (join == 'min' and call('ZRANGE', turns[zone], '0', '0', 'WITHSCORES')[2]) or 0
  if before then
    call('ZREM', turns[before:sub(1, 1)], courier)
  end
  counts[courier] = count
  if is_available then
    -- If another courier of the zone is available, none of its orders is parked.
    counts[courier] = unpark(zone, courier, count)
    call('ZADD', turns[zone], counts[courier], courier)
  end
  call('HSET', couriers, courier, said)
  return 'u' .. counts[courier] - count
end

local ids, outcomes = {}, {}
for i = FIRST, #ARGV, 4 do
  ids[#ids + 1] = ARGV[i + 1]
end
for i, courier in ipairs(call('HMGET', orders, unpack(ids))) do
  known[ids[i]] = courier
end
for i = FIRST, #ARGV, 4 do
  local kind, id, said, entry = unpack(ARGV, i, i + 3)
  local add = kind == 'order' and add_order or add_courier
  local outcome = add(id, said, entry)
  -- The stream numbers its entries: 0-1, 0-2, ...
  call('XADD', log, '0-*', 'e', outcome .. ' ' .. entry)
  outcomes[#outcomes + 1] = outcome
end
flush_orders()
local counted = {}
for courier, count in pairs(counts) do
  counted[#counted + 1] = courier .. ':count'
  counted[#counted + 1] = count
end
flush('HSET', couriers, counted)
return outcomes
