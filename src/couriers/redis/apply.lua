-- Applies events in order, atomically. All keys share one hash tag.
--
-- The decisions are those of dispatch.rs; the tests compare every store with it, event by event.

local couriers, -- hash: courier -> zone, 1 or 0 for available, name; "courier:count" -> orders assigned so far
  orders, -- hash: order -> courier, empty while it is parked
  assigned, -- sorted set, lexical: courier:count:order, and courier::order of replicated ones
  parked, -- sorted set, lexical: zone, time (20 digits), order (36), entry of the log
  log, -- stream: every event, as "outcome", a space, and its entry
  outgoing, -- stream: unpublished assignments, as "order:courier"
  north, south, east, west,
  tally = -- hash: zone:away -> couriers, zone:given -> the sum of all counts, zone:parked; at -> the last entry that is counted
  unpack(KEYS)
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

-- Changes of the tally. If the log has entries that are not counted, `zones.lua` counts again.
local tallied = {}

local function count(field, by)
  tallied[field] = (tallied[field] or 0) + by
end

local last = call('HGET', tally, 'at')
local is_counting = #call('XRANGE', log, last and '(' .. last or '-', '+', 'COUNT', '1') == 0

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
    count(said:sub(1, 1) .. ':parked', 1)
    call('ZADD', parked, '0', said .. order .. entry)
    return 'p'
  end
  counts[courier] = call('ZINCRBY', zone, '1', courier)
  assign(order, courier, counts[courier])
  count(said:sub(1, 1) .. ':given', 1)
  return 'a' .. courier
end

-- Assigns the parked orders of a zone to its only available courier, who has `so_far`; returns the new count.
local function unpark(zone, courier, so_far)
  local beyond = '(' .. string.char(zone:byte() + 1)
  while true do
    local waiting = call('ZRANGE', parked, '[' .. zone, beyond, 'BYLEX', 'LIMIT', '0', '1000')
    if #waiting == 0 then
      return so_far
    end
    for _, member in ipairs(waiting) do
      so_far = so_far + 1
      assign(member:sub(22, 57), courier, so_far)
    end
    call('ZREM', parked, unpack(waiting))
    count(zone .. ':parked', -#waiting)
    flush_orders()
  end
end

local function add_courier(courier, said)
  local zone, is_available = said:sub(1, 1), said:sub(2, 2) == '1'
  local before, orders_before = unpack(call('HMGET', couriers, courier, courier .. ':count'))
  local so_far = counts[courier] or orders_before or (join == 'min' and call('ZRANGE', turns[zone], '0', '0', 'WITHSCORES')[2]) or 0
  if before then
    call('ZREM', turns[before:sub(1, 1)], courier)
    count(before:sub(1, 1) .. ':given', -so_far)
    count(before:sub(1, 1) .. ':away', before:sub(2, 2) == '1' and 0 or -1)
  end
  counts[courier] = so_far
  if is_available then
    -- If another courier of the zone is available, none of its orders is parked.
    counts[courier] = unpark(zone, courier, so_far)
    call('ZADD', turns[zone], counts[courier], courier)
  end
  count(zone .. ':given', counts[courier])
  count(zone .. ':away', is_available and 0 or 1)
  call('HSET', couriers, courier, said)
  return 'u' .. counts[courier] - so_far
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
  last = call('XADD', log, '0-*', 'e', outcome .. ' ' .. entry)
  outcomes[#outcomes + 1] = outcome
end
flush_orders()
local counted = {}
for courier, count in pairs(counts) do
  counted[#counted + 1] = courier .. ':count'
  counted[#counted + 1] = count
end
flush('HSET', couriers, counted)
if is_counting then
  for field, by in pairs(tallied) do
    if by ~= 0 then
      call('HSET', tally, field, (call('HGET', tally, field) or 0) + by)
    end
  end
  call('HSET', tally, 'at', last)
end
return outcomes
