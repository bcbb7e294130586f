-- One zone of the couriers' desk. All its keys share a hash tag: a cluster has them on one node, and the script is atomic.
--
-- The decisions are those of dispatch.rs, which every store is compared with in its tests.

local couriers, -- hash: courier -> sequence:unparked:available:name; see `known`
  counts, -- hash: courier -> orders ever given
  turns, -- sorted set: those who are available, by their count, then their id
  orders, -- hash: order -> courier, or nothing while it is parked
  parked, -- sorted set: time:order, by the letter
  given, -- sorted set: courier:order, by the letter
  leaving, -- hash: courier -> what they take along to another zone, until they have arrived there
  left, -- hash: courier -> the sequence with which they left
  log, -- stream: time, order or event, outcome; an order's event is under its own key
  outgoing, -- sorted set: order:courier, by number
  clock = -- the last number
  unpack(KEYS)
local call = redis.call

local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local last = tonumber(call('GET', clock) or '0')

-- An integer without fraction or exponent; Redis and Lua write large numbers as slow fractions.
local function whole(number)
  return string.format('%d', number)
end

-- The next number: microseconds since 1970, strictly increasing.
local function tick()
  last = math.max(last + 1, now)
  return whole(last)
end

-- `what` is 'order' with an id, or 'event' with the reported event.
local function record(at, what, report, outcome)
  call('XADD', log, tick() .. '-0', 'at', at, what, report, 'outcome', outcome)
end

-- Assigns orders in sequence, each to the courier with the lowest count. Of n orders only the n couriers with the lowest counts
-- can get one. Returns their couriers; nothing if none is available.
local function give(ids, publishes)
  local queue, whose = {}, {}
  local available = call('ZRANGE', turns, 0, #ids - 1, 'WITHSCORES')
  for i = 1, #available, 2 do
    queue[#queue + 1] = { id = available[i], count = tonumber(available[i + 1]) }
  end
  if #queue == 0 then
    return whose
  end
  local pairs_of, of_courier, unpublished = {}, {}, {}
  for _, order in ipairs(ids) do
    local first = table.remove(queue, 1)
    first.count = first.count + 1
    first.given = true
    local low, high = 1, #queue + 1
    while low < high do
      local middle = math.floor((low + high) / 2)
      local other = queue[middle]
      if other.count < first.count or (other.count == first.count and other.id < first.id) then
        low = middle + 1
      else
        high = middle
      end
    end
    table.insert(queue, low, first)
    whose[order] = first.id
    pairs_of[#pairs_of + 1] = order
    pairs_of[#pairs_of + 1] = first.id
    of_courier[#of_courier + 1] = '0'
    of_courier[#of_courier + 1] = first.id .. ':' .. order
    if publishes then
      unpublished[#unpublished + 1] = tick()
      unpublished[#unpublished + 1] = order .. ':' .. first.id
    end
  end
  local by_id, by_count = {}, {}
  for _, courier in ipairs(queue) do
    if courier.given then
      by_id[#by_id + 1] = courier.id
      by_id[#by_id + 1] = whole(courier.count)
      by_count[#by_count + 1] = whole(courier.count)
      by_count[#by_count + 1] = courier.id
    end
  end
  call('HSET', orders, unpack(pairs_of))
  call('HSET', counts, unpack(by_id))
  call('ZADD', turns, unpack(by_count))
  call('ZADD', given, unpack(of_courier))
  if publishes then
    call('ZADD', outgoing, unpack(unpublished))
  end
  return whose
end

-- The sequence of a courier of this zone, and how many parked orders they got.
local function known(courier)
  local said = call('HGET', couriers, courier)
  if not said then
    return nil
  end
  local sequence, unparked, _, name = said:match('^(%d+):(%d+):(%d):(.*)$')
  return { sequence = tonumber(sequence), unparked = unparked, name = name }
end

-- Stores a report; `count` is their own or, if they are new here, what they bring or start with.
local function set_courier(courier, sequence, name, available, count, publishes)
  call('HSET', counts, courier, count)
  call('ZREM', turns, courier)
  if available == '1' then
    call('ZADD', turns, count, courier)
  end
  local unparked = 0
  while call('ZCARD', turns) > 0 do
    local places = call('ZRANGE', parked, 0, 999)
    if #places == 0 then
      break
    end
    local ids = {}
    for i, place in ipairs(places) do
      ids[i] = place:sub(-36)
    end
    give(ids, publishes)
    call('ZREM', parked, unpack(places))
    unparked = unparked + #ids
  end
  local said = string.format('%d:%d:%s:', sequence, unparked, available) .. name
  call('HSET', couriers, courier, said)
  return 'u' .. unparked
end

-- The count of a courier who never had one.
local function beginning(courier, join)
  if join == 'min' then
    for _, other in ipairs(call('ZRANGE', turns, 0, 1)) do
      if other ~= courier then
        return call('ZSCORE', turns, other)
      end
    end
  end
  return '0'
end

local verbs = {}

-- Orders: for each the time, its id, when it was placed, and the current report if it differs from the first one.
function verbs.orders(publishes)
  local ids = {}
  for i = 5, #ARGV, 4 do
    ids[#ids + 1] = ARGV[i]
  end
  local whose, new = {}, {}
  for i, courier in ipairs(call('HMGET', orders, unpack(ids))) do
    local order = ids[i]
    if courier then
      whose[order] = courier
    elseif not new[order] then
      new[order] = true
      new[#new + 1] = order
    end
  end
  local given_now = #new > 0 and give(new, publishes) or {}
  local outcomes = {}
  for i = 4, #ARGV, 4 do
    local at, order, placed, again = unpack(ARGV, i, i + 3)
    local outcome
    if whose[order] then
      outcome = 'd' .. whose[order]
    elseif given_now[order] then
      whose[order] = given_now[order]
      outcome = 'a' .. whose[order]
    else
      whose[order] = ''
      outcome = 'p'
      call('HSET', orders, order, '')
      call('ZADD', parked, 0, placed .. ':' .. order)
    end
    if again == '' or outcome:sub(1, 1) ~= 'd' then
      record(at, 'order', order, outcome)
    end
    if again ~= '' then
      outcome = 'd' .. whose[order]
      record(at, 'event', again, outcome)
    end
    outcomes[#outcomes + 1] = outcome
  end
  return outcomes
end

-- A courier whose home is here, or who is new.
function verbs.say(publishes, join)
  local at, courier, sequence, name, available, event = unpack(ARGV, 4)
  local before = known(courier)
  if not before then
    local gone = call('HGET', leaving, courier)
    if gone or tonumber(call('HGET', left, courier) or '-1') >= tonumber(sequence) then
      return { 'gone', gone or '' }
    end
  end
  local count = before and call('HGET', counts, courier) or beginning(courier, join)
  sequence = before and before.sequence or tonumber(sequence)
  local outcome = set_courier(courier, sequence, name, available, count, publishes)
  record(at, 'event', event, outcome)
  return { 'done', outcome }
end

-- A courier leaves for the zone of `event`. The log has them as unavailable here.
function verbs.leave()
  local at, courier, sequence, zone, event = unpack(ARGV, 4)
  local before = known(courier)
  local gone = call('HGET', leaving, courier)
  local far = tonumber(call('HGET', left, courier) or '-1') >= tonumber(sequence)
  if gone or (before and before.sequence ~= tonumber(sequence)) or (not before and far) then
    return { 'gone', gone or '' }
  end
  -- Without a count, they were only reported here.
  local count = before and call('HGET', counts, courier) or ''
  if before then
    local unavailable = cjson.encode({
      courierId = courier,
      name = before.name,
      zone = zone,
      isAvailable = false,
    })
    record(at, 'event', unavailable, 'u0')
  end
  call('HDEL', couriers, courier)
  call('HDEL', counts, courier)
  call('ZREM', turns, courier)
  local takes = table.concat({ sequence + 1, count, whole(last), at, event }, '\n')
  call('HSET', leaving, courier, takes)
  return { 'done', takes }
end

-- A courier arrives from another zone, with the count and the number they left with.
function verbs.arrive(publishes, join)
  local at, courier, sequence, name, available, event, count, number = unpack(ARGV, 4)
  local before = known(courier)
  if before and before.sequence >= tonumber(sequence) then
    return { 'done', 'u' .. before.unparked }
  end
  -- A late writer completes what others have completed, and who moved the courier on since.
  local gone = call('HGET', leaving, courier)
  local far = gone and gone:match('^%d+') or call('HGET', left, courier) or '-1'
  if tonumber(far) >= tonumber(sequence) then
    return { 'done', 'u0' }
  end
  last = math.max(last, tonumber(number))
  call('HDEL', left, courier)
  count = count ~= '' and count or beginning(courier, join)
  local outcome = set_courier(courier, sequence, name, available, count, publishes)
  record(at, 'event', event, outcome)
  return { 'done', outcome }
end

-- They have arrived, and their home is updated.
function verbs.forget()
  local courier, sequence = unpack(ARGV, 4)
  local gone = call('HGET', leaving, courier)
  if gone and gone:match('^%d+') == sequence then
    call('HDEL', leaving, courier)
    call('HSET', left, courier, sequence)
  end
  return { 'done', '' }
end

local answer = verbs[ARGV[1]](ARGV[2] == '1', ARGV[3])
call('SET', clock, whole(last))
return answer
