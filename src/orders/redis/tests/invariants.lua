-- Appended to the script's state and steps: what must hold between two calls. Returns what does not.

local found = {}

local function must(holds, what, of)
  if not holds then
    found[#found + 1] = what .. ': ' .. tostring(of)
  end
end

must(count(keys.places) == 0 or not first_idle(), 'an order waits while a barista is idle', first_idle())
local stages = 0
for key, is_its in pairs({
  [keys.places] = { waiting = true },
  [keys.leases] = { brewing = true },
  [keys.finals] = { ready = true, cancelled = true },
}) do
  for _, id in ipairs(call('ZRANGE', key, 0, -1)) do
    local o = load(id)
    must(o and is_its[o.stage], 'an order is in a set of another stage', id)
    must(not o or (o.forget_at ~= nil) == (key == keys.finals), 'only final orders are forgotten', id)
    stages = stages + 1
  end
end
must(stages == call('HLEN', keys.orders), 'an order is in exactly one stage', stages)
local held, claims = 0, 0
local all = call('HGETALL', keys.orders)
for i = 1, #all, 2 do
  local id, o = all[i], load(all[i])
  local customers, watchers = 0, 0
  for _, of in ipairs(call('ZRANGE', keys.servers, 0, -1)) do
    local from, to = held_range(of, id)
    for _, member in ipairs(call('ZRANGE', keys.held, from, to, 'BYLEX')) do
      customers = customers + (member:sub(-1) == 'c' and 1 or 0)
      watchers = watchers + (member:sub(-1) == 'w' and 1 or 0)
    end
  end
  must(customers == o.customers and watchers == o.watchers, 'attached requests are counted', id)
  held = held + customers + watchers
  must(not o.attached or call('ZSCORE', keys.held, o.attached), 'the request of a claim is attached', id)
  local is_graced = call('ZSCORE', keys.graces, id) and true or false
  if o.stage == 'waiting' then
    must(customers > 0 or is_graced, 'who waits is held, promised, or within a grace', id)
    must(not o.promised or is_graced, 'a promise has an end', id)
  else
    must(not is_graced, 'only who waits has a grace', id)
  end
  if o.number and not o.forget_at then
    must(call('HGET', keys.claims, 'n' .. o.number) == id, 'a number is of one pending order', id)
    claims = claims + 1
  end
  for prefix, field in pairs({ c = 'key', r = 'request' }) do
    if o[field] then
      must(call('HGET', keys.claims, prefix .. o[field]) == id, 'a claim names its order', id)
      claims = claims + 1
    end
  end
end
must(held == count(keys.held), 'each attached request is of an order', held)
must(claims == call('HLEN', keys.claims), 'each claim is of an order', claims)
local idle = 0
all = call('HGETALL', keys.pulls)
for i = 1, #all, 2 do
  local p = pull_from(cmsgpack.unpack(all[i + 1]))
  if p.order then
    must(order_of(all[i], p), 'an unconfirmed lease holds', all[i])
  else
    idle = idle + 1
    must(call('ZSCORE', keys.idle, all[i]), 'an idle barista is among the idle', all[i])
  end
end
must(idle == count(keys.idle), 'each idle barista has a pull', idle)
must(count(keys.finals) <= rules.remembered_max, 'finals are bounded', count(keys.finals))
local last = call('XREVRANGE', keys.events, '+', '-', 'COUNT', 1)[1]
must((last and last[1] or '0-0') == string.format('%.0f-%.0f', state.event, state.tag), 'the latest event is counted', state.event)
return found
