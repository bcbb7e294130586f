
-- --- What baristas ask -------------------------------------------------------------------------------------------------------

if needed.baristas then
  local function pulled(id, o, duration)
    return variant('Pulled', variant('Order', leased(id, o, duration)))
  end
  local NOTHING, NOW_IDLE = variant('Pulled', pack('Nothing')), variant('Pulled', pack('Idle'))

  function apply.Pull(asked)
    local pull, barista, waits = unpack(asked, 1, 3)
    local p = load_pull(pull)
    see_crew()
    local o = p and order_of(pull, p)
    if o then
      p.server = server
      save_pull(pull, p)
      return pulled(p.order, o, remaining(keys.leases, p.order))
    end
    -- Idle already, perhaps through another server.
    local place = call('ZSCORE', keys.idle, pull)
    call('ZREM', keys.idle, pull)
    p = { server = server, barista = barista }
    local id
    id, o = take_first(pull, p, false)
    if id then
      return pulled(id, o, rules.lease)
    end
    if waits then
      become_idle(pull, p, place)
      return NOW_IDLE
    end
    call('HDEL', keys.pulls, pull)
    return NOTHING
  end

  function apply.Quit(quit)
    local pull = quit[1]
    local p = load_pull(pull)
    if not p or p.server ~= server then
      return NOTHING
    end
    local o = order_of(pull, p)
    if o then
      return pulled(p.order, o, remaining(keys.leases, p.order))
    end
    remove_idle(pull)
    return NOTHING
  end

  function apply.Confirm(confirm)
    for _, pull in ipairs(confirm[1]) do
      local p = load_pull(pull)
      if p and p.order and p.server == server then
        call('HDEL', keys.pulls, pull)
      end
    end
    return DONE
  end

  function apply.GiveBack(given)
    local pull = given[1]
    local p = load_pull(pull)
    local o = p and p.server == server and order_of(pull, p)
    return variant('Returned', pack(o and undo_lease(pull, p, o) or 'Over'))
  end

  function apply.Finish(finish)
    local id, attempt, report, result = unpack(finish, 1, 4)
    local o = load(id)
    if not o then
      return variant('Finished', pack('Unknown'))
    end
    local stage, current = o.stage, current_attempt(o)
    local function ready(already)
      return variant('Finished', variant('Ready', '\146' .. record(o) .. pack(already)))
    end
    if stage == 'ready' and o.report == report then
      return ready(false)
    end
    if stage == 'cancelled' or (stage == 'waiting' and o.attempts == 0) then
      return variant('Finished', variant('NotStarted', pack(stage)))
    end
    if attempt and attempt ~= current then
      return variant('Finished', variant('Fenced', '\146' .. pack(stage, current)))
    end
    if stage == 'ready' then
      return ready(true)
    end
    local waiting = count(keys.places) > 0
    advance(waiting)
    if stage == 'brewing' then
      forget_lease(id, o)
      call('ZREM', keys.leases, id)
    else
      step_out(id)
    end
    see_crew()
    measure_finish(o.started_at and max(0, now - o.started_at) or 0, waiting)
    o.report, o.result = report, result
    conclude(id, o, 'ready')
    emit_order('Ready', id, o)
    return ready(false)
  end

  function apply.Extend(extend)
    local id = extend[1]
    local o, otherwise = brewing(id, extend[2])
    if not o then
      return variant('Extended', otherwise)
    end
    see_crew()
    call('ZADD', keys.leases, now + rules.lease, id)
    return variant('Extended', variant('Current', leased(id, o, rules.lease)))
  end

  function apply.Release(release)
    local id = release[1]
    local o, otherwise = brewing(id, release[2])
    if not o then
      return variant('Released', otherwise)
    end
    see_crew()
    return variant('Released', variant('Current', pack(end_lease(id, o))))
  end
end
