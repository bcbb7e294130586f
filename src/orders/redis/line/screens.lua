
-- --- What screens show -------------------------------------------------------------------------------------------------------

if needed.screens then
  -- Without what is only for one barista or one customer.
  local function briefly(id, o)
    o.details, o.result = nil, nil
    return '\146' .. pack(id) .. record(o)
  end

  function apply.Survey()
    advance(count(keys.places) > 0)
    local next_, cups, recent, first = {}, {}, {}, nil
    for _, id in ipairs(call('ZRANGE', keys.places, 0, 23)) do
      local o = load(id)
      if o then
        first = first or o
        next_[#next_ + 1] = briefly(id, o)
      end
    end
    for _, id in ipairs(call('ZRANGE', keys.leases, 0, 99)) do
      local o = load(id)
      if o then
        cups[#cups + 1] = leased(id, o, remaining(keys.leases, id))
      end
    end
    for _, id in ipairs(call('ZRANGE', keys.finals, 0, 99, 'REV')) do
      local o = load(id)
      if o and o.stage == 'ready' then
        recent[#recent + 1] = briefly(id, o)
      end
    end
    local waiting = count(keys.places)
    local oldest = first and max(0, now - first.placed_at)
    local head = pack(state.wall, waiting, count(keys.idle), oldest, estimate(waiting), is_crew_present(), state.closed)
    return variant('Surveyed', '\154' .. head .. array(next_) .. array(cups) .. array(recent))
  end

  function apply.Shut(shut)
    state.closed = shut[1]
    return DONE
  end
end
