
-- --- Time --------------------------------------------------------------------------------------------------------------------

if needed.time then
  local function expire(id, o, expired)
    o.expiries = o.expiries + 1
    local moved_back = o.expiries >= rules.attempts_max
    if moved_back then
      o.expiries, o.ticket = 0, state.ticket
      state.ticket = state.ticket + 1
    end
    local of = pack(id, o.attempts, o.barista, o.request_id, moved_back)
    expired[#expired + 1] = '\150' .. of .. pack(end_lease(id, o))
  end

  -- Leases, graces and promises that have ended, by ticket; whether there may be more.
  local function due()
    local found = {}
    for _, key in ipairs({ keys.leases, keys.graces }) do
      local ids = call('ZRANGE', key, '-inf', now, 'BYSCORE', 'LIMIT', 0, ITEMS_MAX - #found)
      for _, id in ipairs(ids) do
        local o = load(id)
        if o then
          found[#found + 1] = { id = id, o = o }
        else
          -- Not of this format.
          call('ZREM', key, id)
        end
      end
    end
    table.sort(found, by_ticket)
    return found, #found == ITEMS_MAX
  end

  -- Ends what has ended: expired leases, and numbers of abandoned and unasked orders.
  local function elapse(found)
    local expired, abandoned, unasked = {}, 0, 0
    for _, item in ipairs(found) do
      local id, o = item.id, item.o
      if o.stage == 'brewing' then
        expire(id, o, expired)
      elseif o.promised and o.customers + o.watchers > 0 then
        renew_promise(id, o)
      elseif o.promised then
        step_out(id)
        conclude(id, o, 'cancelled')
        emit_cancelled(id, o, nil)
        unasked = unasked + 1
      else
        drop_unwanted(id, o)
        abandoned = abandoned + 1
      end
    end
    return array(expired), abandoned, unasked
  end

  -- Whether there may be more.
  local function forget_due()
    for _ = 1, ITEMS_MAX do
      local id = call('ZRANGE', keys.finals, 0, 0)[1]
      local o = id and load(id)
      if not id or (o and o.forget_at > now and count(keys.finals) <= rules.remembered_max) then
        return false
      end
      forget_oldest()
    end
    return true
  end

  -- Releases what a silent server holds: so many items; how many are left.
  local function remove(silent, items)
    call('HDEL', keys.calls, 'n' .. silent, 'r' .. silent, 's' .. silent, 'd' .. silent)
    local idle, leases = pulls_of(silent)
    for _, pull in ipairs(idle) do
      remove_idle(pull)
    end
    items = items - #idle
    for _, lease in ipairs(leases) do
      if items > 0 then
        end_lease(lease.id, load(lease.id))
        items = items - 1
      end
    end
    local from, to = held_range(silent)
    for _, member in ipairs(items > 0 and call('ZRANGE', keys.held, from, to, 'BYLEX', 'LIMIT', 0, items) or {}) do
      release_member(member, true)
      items = items - 1
    end
    if items > 0 then
      call('ZREMRANGEBYLEX', keys.named, from, to)
      call('ZREM', keys.servers, silent)
    end
    return items
  end

  local function remove_silent()
    local items, removed = ITEMS_MAX, 0
    for _, silent in ipairs(call('ZRANGE', keys.servers, '-inf', now - 5000, 'BYSCORE')) do
      items = items > 0 and remove(silent, items) or 0
      removed = removed + (items > 0 and 1 or 0)
    end
    return removed, items <= 0
  end

  -- Baristas whose server ticks again get what waits; whether there may be more.
  local function match_idle()
    for _ = 1, ITEMS_MAX do
      local pull, p = nil, nil
      if count(keys.places) > 0 and count(keys.idle) > 0 then
        pull, p = first_idle()
      end
      if not pull then
        return false
      end
      see_crew()
      call('ZREM', keys.idle, pull)
      take_first(pull, p, true)
    end
    return true
  end

  local function figures()
    local first = call('ZRANGE', keys.places, 0, 0)[1]
    local o = first and load(first)
    local oldest = o and max(0, now - o.placed_at) or 0
    local finals = count(keys.finals)
    return '\151'
      .. pack(count(keys.places), count(keys.leases), state.ready, finals - state.ready, count(keys.held), count(keys.idle), oldest)
  end

  local function next_due()
    local next_
    for _, key in ipairs({ keys.leases, keys.graces }) do
      local at = call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
      if at then
        next_ = min(next_ or math.huge, max(0, at - now))
      end
    end
    return next_
  end

  function apply.Tick()
    state.clock, state.ticked = now, state.wall
    call('ZADD', keys.servers, now, server)
    quiet_servers = nil
    local more_to_match = match_idle()
    local found, more_due = due()
    local expired, abandoned, unasked = elapse(found)
    local more_to_forget = forget_due()
    local removed, more_to_remove = remove_silent()
    call('ZREMRANGEBYSCORE', keys.blocked, '-inf', state.wall)
    local others = 0
    for _, other in ipairs(call('ZRANGE', keys.servers, '(' .. now - QUIET_AFTER, 'inf', 'BYSCORE')) do
      if other ~= server and call('HEXISTS', keys.calls, 'd' .. other) == 0 then
        others = others + 1
      end
    end
    local more = more_to_match or more_due or more_to_forget or more_to_remove
    return variant(
      'Ticked',
      '\152' .. pack(more, next_due(), others) .. expired .. pack(abandoned, unasked, removed) .. figures()
    )
  end
end
