-- The couriers and the parked orders of each zone. `apply.lua` counts as it goes; what it cannot have counted is counted here:
-- couriers from before there was a tally, and events that a server of an earlier version applied.

local couriers, parked, log, tally, north, south, east, west = unpack(KEYS)
local turns = { N = north, S = south, E = east, W = west }
local call = redis.call

-- Whether the log goes on after an entry; its entries are 0-1, 0-2, ...
local function goes_on(number)
  return #call('XRANGE', log, '(0-' .. number, '+', 'COUNT', '1') > 0
end

local at = tonumber(((call('HGET', tally, 'at') or '0-0'):sub(3)))
if goes_on(at) then
  -- The last entry, by bisection: not every user may read a stream backwards.
  local step = 1
  while goes_on(at + step) do
    step = step * 2
  end
  local beyond = at + step
  while beyond - at > 1 do
    local middle = math.floor((at + beyond) / 2)
    if goes_on(middle) then
      at = middle
    else
      beyond = middle
    end
  end
  at = beyond

  local all = call('HGETALL', couriers)
  local counts, places = {}, {}
  for i = 1, #all, 2 do
    local courier = all[i]:match('^(.*):count$')
    if courier then
      counts[courier] = all[i + 1]
    else
      places[all[i]] = all[i + 1]
    end
  end
  local tallied = {}
  local function add(field, by)
    tallied[field] = (tallied[field] or 0) + by
  end
  for zone in pairs(turns) do
    add(zone .. ':given', 0)
    add(zone .. ':away', 0)
    local beyond = '(' .. string.char(zone:byte() + 1)
    add(zone .. ':parked', #call('ZRANGE', parked, '[' .. zone, beyond, 'BYLEX'))
  end
  for courier, said in pairs(places) do
    local zone = said:sub(1, 1)
    add(zone .. ':given', counts[courier] or 0)
    add(zone .. ':away', said:sub(2, 2) == '1' and 0 or 1)
  end
  for field, count in pairs(tallied) do
    call('HSET', tally, field, count)
  end
  call('HSET', tally, 'at', '0-' .. at)
end

local zones = {}
for zone, key in pairs(turns) do
  local beyond = '(' .. string.char(zone:byte() + 1)
  zones[#zones + 1] = {
    zone,
    tostring(call('ZCARD', key)),
    call('HGET', tally, zone .. ':away') or '0',
    call('HGET', tally, zone .. ':given') or '0',
    call('ZRANGE', key, '0', '0', 'WITHSCORES')[2] or '',
    call('ZRANGE', key, '-1', '-1', 'WITHSCORES')[2] or '',
    call('HGET', tally, zone .. ':parked') or '0',
    (call('ZRANGE', parked, '[' .. zone, beyond, 'BYLEX', 'LIMIT', '0', '1')[1] or ''):sub(2, 21),
  }
end
return zones
