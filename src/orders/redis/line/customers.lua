
-- --- What customers ask ------------------------------------------------------------------------------------------------------

if needed.customers then
  local function replace_request(id, o, attachment)
    local member = member_of(id, attachment, true)
    if o.attached and o.attached ~= member then
      detach(o, o.attached)
    end
    o.attached = attach(id, o, attachment, true)
  end

  local function place_again(id, o, fingerprint, attachment, keep)
    if fingerprint and o.fingerprint ~= fingerprint then
      return variant('KeyReused', pack(id))
    end

    if o.forget_at then
      return variant('Replayed', '\146' .. pack(id) .. record(o))
    end
    o.keep = fingerprint and keep or o.keep
    o.promised = o.promised or not attachment
    if o.stage == 'waiting' then
      call('ZREM', keys.graces, id)
      renew_promise(id, o)
    end
    if attachment and o.request then
      replace_request(id, o, attachment)
    elseif attachment then
      attach(id, o, attachment, true)
    end
    save(id, o)
    return variant('Joined', '\146' .. pack(id) .. record(o))
  end

  -- The next pick-up number that is not in use; none if 50 in a row are.
  local function take_number(id)
    for _ = 1, 50 do
      local number = state.number
      state.number = (number + 1) % 2600
      if call('HSETNX', keys.claims, 'n' .. number, id) == 1 then
        return number
      end
    end
  end

  local function place(id, claimed, customer, details, request_id, origin, attachment, keep)
    local key, fingerprint = unpack(claimed and claimed.Key or {})
    local request = claimed and claimed.Request
    local claim_field = key and 'c' .. key or request and 'r' .. request
    local o, known = load(id), claim_field and call('HGET', keys.claims, claim_field)
    if o then
      return place_again(id, o, nil, attachment)
    end
    o = known and load(known)
    if o then
      return place_again(known, o, fingerprint, attachment, keep)
    end
    local blocked = (origin and call('ZSCORE', keys.blocked, origin) or 0) - state.wall
    if blocked > 0 then
      return variant('Blocked', pack(blocked))
    end
    if state.closed then
      return variant('Shut', pack(state.closed))
    end
    if count(keys.places) >= rules.waiting_max then
      advance(true)
      return variant('Full', pack(estimate(0)))
    end
    o = {
      stage = 'waiting',
      attempts = 0,
      placed = state.wall,
      customer = customer,
      details = details,
      request_id = request_id,
      origin = origin,
      delivered = false,
      promised = not attachment,
      customers = 0,
      watchers = 0,
      ticket = state.ticket,
      expiries = 0,
      key = key,
      fingerprint = fingerprint,
      request = request,
      number = take_number(id),
      keep = key and keep,
      placed_at = now,
    }
    state.ticket = state.ticket + 1
    if claim_field then
      call('HSET', keys.claims, claim_field, id)
    end
    if attachment then
      local member = attach(id, o, attachment, true)
      o.attached = request and member
    end
    if not enter(id, o) then
      renew_promise(id, o)
      save(id, o)
    end
    return variant('New', record(o))
  end

  function apply.Place(placing)
    return variant('Placed', place(unpack(placing, 1, 8)))
  end

  function apply.Watch(watch)
    local id, attachment = unpack(watch)
    local o = load(id)
    if not o or o.forget_at then
      return variant('Watched', pack('Not'))
    end
    attach(id, o, attachment, false)
    save(id, o)
    return variant('Watched', variant('Attached', record(o)))
  end

  function apply.Leave(leave)
    local id, attachment = unpack(leave)
    local o = load(id)
    if o and detach(o, member_of(id, attachment, true)) then
      -- The proxy sends the requests of a server that has departed to another one.
      local departed = call('HEXISTS', keys.calls, 'd' .. server) == 1
      return variant('Left', pack(unwant(id, o, departed)))
    end
    if o and detach(o, member_of(id, attachment, false)) then
      save(id, o)
    end
    return variant('Left', pack('Nothing'))
  end

  function apply.Promise(promise)
    local id, attachment = unpack(promise)
    local o = load(id)
    local detached = o and (detach(o, member_of(id, attachment, true)) or detach(o, member_of(id, attachment, false)))
    if detached then
      o.promised = true
      renew_promise(id, o)
      save(id, o)
    end
    return variant('Promised', pack(detached or false))
  end

  function apply.View(view)
    local id, renew = unpack(view)
    local o = load(id)
    if not o then
      return variant('Viewed', pack(nil))
    end
    if renew then
      renew_promise(id, o)
    end
    advance(count(keys.places) > 0)
    local position, wait, crew, ask_before
    if o.stage == 'waiting' then
      position = call('ZRANK', keys.places, id) + 1
      wait, crew = estimate(position - 1), is_crew_present()
      ask_before = o.promised and state.wall + remaining(keys.graces, id) or nil
    elseif o.stage == 'brewing' and state.brew then
      wait = math.floor(math.abs(state.brew * 1000 - max(0, now - o.started_at)))
    end
    return variant('Viewed', '\149' .. record(o) .. pack(position, wait, crew, ask_before))
  end

  function apply.Cancel(cancel)
    local id = cancel[1]
    local o = load(id)
    if not o then
      return variant('Cancelled', pack('Unknown'))
    end
    if o.stage == 'cancelled' then
      return variant('Cancelled', variant('Already', record(o)))
    end
    if o.stage ~= 'waiting' then
      return variant('Cancelled', variant('TooLate', pack(o.stage)))
    end
    step_out(id)
    conclude(id, o, 'cancelled')
    emit_cancelled(id, o, nil)
    return variant('Cancelled', variant('Now', record(o)))
  end

  function apply.Purge(purge)
    local origin, age, blocked = unpack(purge)
    if blocked > 0 then
      local before = call('ZSCORE', keys.blocked, origin)
      call('ZADD', keys.blocked, state.wall + blocked, origin)
      if not before or before + 0 <= state.wall then
        emit('Blocked', '\146' .. pack(origin, blocked))
      end
    end
    local theirs, more, from = {}, false, 0
    while not more do
      local ids = call('ZRANGE', keys.places, from, from + ITEMS_MAX - 1)
      if #ids == 0 then
        break
      end
      for i, bytes in ipairs(call('HMGET', keys.orders, unpack(ids))) do
        -- Most are of others, which is known without unpacking them.
        local o = bytes and bytes:find(origin, 1, true) and load(ids[i])
        if o and o.origin == origin and o.placed_at > now - age then
          more = #theirs == ITEMS_MAX
          theirs[#theirs + 1] = not more and { ids[i], o } or nil
        end
      end
      from = from + #ids
    end
    for _, their in ipairs(theirs) do
      local id, o = unpack(their)
      step_out(id)
      conclude(id, o, 'cancelled')
      emit_cancelled(id, o, blocked)
    end
    return variant('Purged', '\146' .. pack(#theirs, more))
  end

  function apply.Unblock(unblock)
    if call('ZREM', keys.blocked, unblock[1]) == 1 then
      emit('Unblocked', '\145' .. pack(unblock[1]))
    end
    return DONE
  end
end
