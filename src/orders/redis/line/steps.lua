
-- --- Attached requests ------------------------------------------------------------------------------------------------------

local function held_range(of, id)
  local prefix = id and of .. '/' .. id or of
  -- '0' follows '/'.
  return '[' .. prefix .. '/', '(' .. prefix .. '0'
end

local function member_of(id, attachment, is_customer)
  return string.format('%s/%s/%.0f/%s', server, id, attachment, is_customer and 'c' or 'w')
end

local function name(member)
  if call('HEXISTS', keys.calls, 's' .. server) == 1 then
    call('ZADD', keys.named, 0, member)
  end
end

local function attach(id, o, attachment, is_customer)
  local member = member_of(id, attachment, is_customer)
  if call('ZADD', keys.held, 0, member) == 1 then
    local field = is_customer and 'customers' or 'watchers'
    o[field] = o[field] + 1
    o.lost_until = not is_customer and o.lost_until or nil
  end
  name(member)
  return member
end

-- False if it is not attached.
local function detach(o, member)
  if call('ZREM', keys.held, member) == 0 then
    return false
  end
  local field = member:sub(-1) == 'c' and 'customers' or 'watchers'
  o[field] = o[field] - 1
  if o.attached == member then
    o.attached = nil
  end
  return true
end

local function detach_all(id, o)
  local left = o.customers + o.watchers
  if left == 1 and o.attached then
    left = left - call('ZREM', keys.held, o.attached)
  end
  if left > 0 then
    for _, other in ipairs(call('ZRANGE', keys.servers, 0, -1)) do
      call('ZREMRANGEBYLEX', keys.held, held_range(other, id))
    end
  end
  o.customers, o.watchers, o.attached = 0, 0, nil
end

-- --- Steps ------------------------------------------------------------------------------------------------------------------

local function free_claims(id, o)
  for prefix, field in pairs({ c = 'key', r = 'request' }) do
    local claim = o[field] and prefix .. o[field]
    if claim and call('HGET', keys.claims, claim) == id then
      call('HDEL', keys.claims, claim)
    end
  end
  o.key, o.fingerprint, o.request = nil, nil, nil
end

local function forget_oldest()
  local id = call('ZPOPMIN', keys.finals)[1]
  local o = load(id)
  if o then
    if o.stage == 'ready' then
      state.ready = state.ready - 1
    end
    free_claims(id, o)
    call('HDEL', keys.orders, id)
  end
end

local function free_number(o)
  if o.number then
    call('HDEL', keys.claims, 'n' .. o.number)
  end
end

local function conclude(id, o, stage)
  free_number(o)
  o.delivered = stage == 'ready' and o.customers + o.watchers > 0
  detach_all(id, o)
  o.stage, o.ended, o.forget_at, o.pull, o.lost_until = stage, state.wall, now + rules.replay, nil, nil
  o.details = nil
  if stage == 'ready' then
    state.ready = state.ready + 1
  end
  save(id, o)
  call('ZADD', keys.finals, state.final, id)
  state.final = state.final + 1
  for _ = 1, min(count(keys.finals) - rules.remembered_max, ITEMS_MAX) do
    forget_oldest()
  end
end

local function step_out(id)
  call('ZREM', keys.places, id)
  if count(keys.places) == 0 then
    advance(true)
  end
  call('ZREM', keys.graces, id)
end

local function renew_promise(id, o)
  if o.promised and o.stage == 'waiting' then
    call('ZADD', keys.graces, now + rules.promise_grace, id)
  end
end

local function drop_unwanted(id, o)
  step_out(id)
  free_claims(id, o)
  if o.attempts > 0 then
    o.unwanted = true
    conclude(id, o, 'cancelled')
    emit_cancelled(id, o, nil)
  else
    detach_all(id, o)
    free_number(o)
    call('HDEL', keys.orders, id)
    emit('Dropped', '\145' .. pack(id))
  end
end

local function settle_unwanted(id, o)
  if o.promised or o.customers > 0 then
    renew_promise(id, o)
    return 'Kept'
  end
  local until_ = o.key and now + (o.keep or rules.reconnect_grace) or o.request and o.lost_until
  if until_ and until_ > now then
    call('ZADD', keys.graces, until_, id)
    return 'Graced'
  end
  drop_unwanted(id, o)
  return 'Cancelled'
end

-- To the barista of a pull, who is idle or asks. Saves both.
local function grant_lease(id, o, pull, p, to)
  if count(keys.leases) == 0 then
    advance(count(keys.places) > 0)
  end
  p.order, p.attempt = id, o.attempts + 1
  p.started, p.started_at, p.previous = o.started, o.started_at, o.barista
  o.stage, o.started, o.started_at, o.barista = 'brewing', state.wall, now, p.barista
  o.attempts, o.pull = o.attempts + 1, pull
  state.crew = now
  call('ZREM', keys.graces, id)
  call('ZADD', keys.leases, now + rules.lease, id)
  save(id, o)
  save_pull(pull, p)
  local handed = to and '\146' .. pack(p.server, pull) or pack(nil)
  emit('Started', '\148' .. pack(id) .. record(o) .. pack(state.wall + rules.lease) .. handed)
end

-- To its place, or to the longest-idle barista: then true, and it is saved.
local function enter(id, o)
  local pull, p = first_idle()
  if pull then
    call('ZREM', keys.idle, pull)
    grant_lease(id, o, pull, p, true)
    return true
  end
  if count(keys.places) == 0 then
    advance(false)
  end
  call('ZADD', keys.places, o.ticket, id)
  return false
end

-- The first in line to the barista of a pull; its id and order, or nothing.
local function take_first(pull, p, to)
  local id = call('ZRANGE', keys.places, 0, 0)[1]
  local o = id and load(id)
  if not o then
    return nil
  end
  call('ZREM', keys.places, id)
  if count(keys.places) == 0 then
    advance(true)
  end
  grant_lease(id, o, pull, p, to)
  return id, o
end

local function forget_lease(id, o)
  local pull = o.pull
  local p = pull and load_pull(pull)
  if p and p.order == id and p.attempt == o.attempts then
    call('HDEL', keys.pulls, pull)
  end
  o.pull = nil
end

-- Back to its ticket, and saved, unless it is gone.
local function return_to_line(id, o)
  if count(keys.leases) == 1 then
    advance(count(keys.places) > 0)
  end
  call('ZREM', keys.leases, id)
  o.stage = 'waiting'
  if enter(id, o) then
    return 'Offered'
  end
  if settle_unwanted(id, o) == 'Cancelled' then
    return 'Cancelled'
  end
  save(id, o)
  emit_order('Returned', id, o)
  return 'ToLine'
end

local function end_lease(id, o)
  forget_lease(id, o)
  return return_to_line(id, o)
end

-- The order of an unconfirmed lease that still holds.
local function order_of(pull, p)
  local o = p.order and load(p.order)
  local holds = o and o.stage == 'brewing' and o.pull == pull and o.attempts == p.attempt
  return holds and o or nil
end

local function undo_lease(pull, p, o)
  call('HDEL', keys.pulls, pull)
  o.attempts, o.pull = o.attempts - 1, nil
  o.started, o.started_at, o.barista = p.started, p.started_at, p.previous
  return return_to_line(p.order, o)
end

-- A customer's request is detached. If `lost`, it comes back through another server.
local function unwant(id, o, lost)
  if lost and o.customers == 0 then
    o.lost_until = now + rules.reconnect_grace
  end
  local left = o.stage == 'waiting' and settle_unwanted(id, o) or 'Kept'
  if left ~= 'Cancelled' then
    save(id, o)
  end
  return left
end

local function release_member(member, lost)
  local id = member:match('/(%x+)/')
  local o = load(id)
  if not o or not detach(o, member) then
    call('ZREM', keys.held, member)
  elseif member:sub(-1) == 'c' then
    unwant(id, o, lost)
  else
    save(id, o)
  end
end

local function current_attempt(o)
  return o.stage == 'waiting' and o.attempts + 1 or o.attempts
end

-- The order, if this attempt of it is under a lease; else what it is instead.
local function brewing(id, attempt)
  local o = load(id)
  if not o then
    return nil, pack('Unknown')
  end
  if o.stage ~= 'brewing' then
    return nil, variant('NotBrewing', pack(o.stage))
  end
  if attempt and attempt ~= o.attempts then
    return nil, variant('Another', '\146' .. pack(o.stage, o.attempts))
  end
  return o
end

local function by_ticket(a, b)
  local x, y = a.o.ticket, b.o.ticket
  return x < y or (x == y and a.id < b.id)
end

-- The pulls of a server: idle ones, and unconfirmed leases by ticket. What is neither is removed.
local function pulls_of(of)
  local idle, leases, all = {}, {}, call('HGETALL', keys.pulls)
  for i = 1, #all, 2 do
    local pull, p = all[i], pull_from(cmsgpack.unpack(all[i + 1]))
    if p.server == of then
      local o = order_of(pull, p)
      if o then
        leases[#leases + 1] = { pull = pull, p = p, id = p.order, o = o }
      elseif p.order then
        call('HDEL', keys.pulls, pull)
      else
        idle[#idle + 1] = pull
      end
    end
  end
  table.sort(leases, by_ticket)
  return idle, leases
end

local function remove_idle(pull)
  call('ZREM', keys.idle, pull)
  call('HDEL', keys.pulls, pull)
end

-- At its earlier place among the idle, if it has one.
local function become_idle(pull, p, place)
  call('ZADD', keys.idle, place or state.idle, pull)
  state.idle = state.idle + 1
  save_pull(pull, p)
end

-- --- Operations: each validates before its first write, and returns its packed reply ----------------------------------------

local DONE = pack('Done')
local apply, needed = {}, {}
-- Only those are defined of which the call needs one: each call would pay for all.
local part_of = {
  Hello = 'resync',
  Assert = 'resync',
  Settle = 'resync',
  Depart = 'resync',
  Pull = 'baristas',
  Quit = 'baristas',
  Confirm = 'baristas',
  GiveBack = 'baristas',
  Finish = 'baristas',
  Extend = 'baristas',
  Release = 'baristas',
  Tick = 'time',
  Survey = 'screens',
  Shut = 'screens',
}
for _, operation in ipairs(operations) do
  local kind = type(operation) == 'table' and next(operation) or operation
  needed[part_of[kind] or 'customers'] = true
end
