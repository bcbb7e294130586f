
-- --- What servers say of themselves ------------------------------------------------------------------------------------------

if needed.resync then
  function apply.Hello()
    call('ZREMRANGEBYLEX', keys.named, held_range(server))
    call('HDEL', keys.calls, 'd' .. server)
    if #call('ZRANGE', keys.held, '[' .. server .. '/', '(' .. server .. '0', 'BYLEX', 'LIMIT', 0, 1) > 0 then
      call('HSET', keys.calls, 's' .. server, 1)
    end
    for _, pull in ipairs((pulls_of(server))) do
      remove_idle(pull)
    end
    call('ZADD', keys.servers, now, server)
    quiet_servers = nil
    local blocked = {}
    local all = call('ZRANGE', keys.blocked, '(' .. state.wall, 'inf', 'BYSCORE', 'WITHSCORES')
    for i = 1, #all, 2 do
      blocked[#blocked + 1] = '\146' .. pack(all[i], all[i + 1] - state.wall)
    end
    return variant('Welcome', '\146' .. pack(state.event) .. array(blocked))
  end

  -- The attachments that this server has at an order become the given ones.
  local function adopt(id, o, attachments)
    local from, to = held_range(server, id)
    local before, customer = {}, nil
    for _, member in ipairs(call('ZRANGE', keys.held, from, to, 'BYLEX')) do
      before[member] = true
    end
    for _, attachment in ipairs(attachments) do
      local member = attach(id, o, attachment[1], attachment[2])
      before[member] = nil
      customer = customer or attachment[2] and member
    end
    for member in pairs(before) do
      detach(o, member)
    end
    o.attached = o.attached or o.request and customer or nil
  end

  local function claim(id, o, prefix, field)
    if o[field] and call('HSETNX', keys.claims, prefix .. o[field], id) == 0 then
      -- It names another order by now.
      o[field], o.fingerprint = nil, nil
    end
  end

  -- An order of which the store knows nothing, with its stage, ticket and attempt.
  local function put_back(id, o, attachments)
    o.customers, o.watchers, o.attached, o.pull, o.forget_at, o.lost_until, o.unwanted = 0, 0, nil, nil, nil, nil, nil
    o.placed_at = now - max(0, state.wall - o.placed)
    o.started_at = o.started and now - max(0, state.wall - o.started)
    claim(id, o, 'c', 'key')
    claim(id, o, 'r', 'request')
    if o.number and call('HSETNX', keys.claims, 'n' .. o.number, id) == 0 then
      o.number = nil
    end
    adopt(id, o, attachments)
    state.ticket = max(state.ticket, o.ticket + 1)
    if o.stage == 'brewing' then
      if count(keys.leases) == 0 then
        advance(count(keys.places) > 0)
      end
      state.crew = now
      call('ZADD', keys.leases, now + rules.lease, id)
      save(id, o)
    elseif not enter(id, o) then
      unwant(id, o, true)
    end
  end

  local function has_customer(attachments)
    for _, attachment in ipairs(attachments) do
      if attachment[2] then
        return true
      end
    end
    return false
  end

  -- The record as it is, if it may be another one than was asserted.
  local function assert_order(id, asserted, attachments)
    local o = load(id)
    if o and o.unwanted and not asserted.ended and has_customer(attachments) then
      -- Its server was taken for dead, and its customer waits there.
      call('ZREM', keys.finals, id)
      if o.attempts > asserted.attempts then
        asserted.stage, asserted.attempts, asserted.started, asserted.barista = 'waiting', o.attempts, o.started, o.barista
      end
      o = nil
    end
    if o and o.forget_at then
      return record(o)
    end
    if asserted.ended then
      return record(asserted)
    end
    if not o then
      put_back(id, asserted, attachments)
      return pack(nil)
    end
    adopt(id, o, attachments)
    o.promised = o.promised or asserted.promised
    if o.stage == 'waiting' and (o.promised or o.customers > 0) then
      call('ZREM', keys.graces, id)
      renew_promise(id, o)
    elseif o.stage == 'waiting' and not call('ZSCORE', keys.graces, id) then
      unwant(id, o, true)
      return pack(nil)
    end
    save(id, o)
    return record(o)
  end

  function apply.Assert(orders)
    local replies = {}
    for i, asserted in ipairs(orders) do
      replies[i] = assert_order(asserted[1], order_from(unpack(asserted[2], 1, 24)), asserted[3])
    end
    return variant('Asserted', array(replies))
  end

  function apply.Settle(said)
    local is_idle, is_unconfirmed = {}, {}
    for _, pull in ipairs(said[1]) do
      is_idle[pull[1]] = true
    end
    for _, pull in ipairs(said[2]) do
      is_unconfirmed[pull] = true
    end
    local idle, leases = pulls_of(server)
    for _, pull in ipairs(idle) do
      if not is_idle[pull] then
        remove_idle(pull)
      end
    end
    for _, lease in ipairs(leases) do
      if is_idle[lease.pull] then
        -- The server has not learned of it.
        undo_lease(lease.pull, lease.p, load(lease.id))
      elseif not is_unconfirmed[lease.pull] then
        call('HDEL', keys.pulls, lease.pull)
      end
    end
    if call('HDEL', keys.calls, 's' .. server) == 1 then
      local named, from, to = {}, held_range(server)
      for _, member in ipairs(call('ZRANGE', keys.named, from, to, 'BYLEX')) do
        named[member] = true
      end
      for _, member in ipairs(call('ZRANGE', keys.held, from, to, 'BYLEX')) do
        if not named[member] then
          release_member(member, false)
        end
      end
      call('ZREMRANGEBYLEX', keys.named, from, to)
    end
    for _, pull in ipairs(said[1]) do
      if call('HEXISTS', keys.pulls, pull[1]) == 0 then
        see_crew()
        local p = { server = server, barista = pull[2] }
        if not take_first(pull[1], p, true) then
          become_idle(pull[1], p)
        end
      end
    end
    return DONE
  end

  function apply.Depart(requests)
    call('HSET', keys.calls, 'd' .. server, 1)
    for _, request in ipairs(requests) do
      release_member(member_of(request[1], request[2], true), true)
    end
    return DONE
  end
end
