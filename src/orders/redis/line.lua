-- Applies one call of a server: its operations, in order. All keys share one hash tag.
--
-- The port is src/orders/store.rs; the rules are those of src/orders/line.rs, from which the functions here have their names.
-- Arguments, replies and stored values are MessagePack. Times are milliseconds.

local keys = {
  meta = KEYS[1], -- string: the counters and the estimate, see save_state
  orders = KEYS[2], -- hash: id -> record, and what only this script needs: see order_from
  places = KEYS[3], -- sorted set: waiting orders by ticket
  leases = KEYS[4], -- sorted set: orders being brewed by the end of the lease
  graces = KEYS[5], -- sorted set: waiting orders by the end of their grace or promise
  finals = KEYS[6], -- sorted set: final orders in the order of their ends
  claims = KEYS[7], -- hash: "c" and key, "r" and request, or "n" and pick-up number -> id
  held = KEYS[8], -- sorted set, lexical: server/id/attachment/kind
  named = KEYS[9], -- sorted set, lexical: members of `held`, attached or asserted since a Hello that has not been settled
  idle = KEYS[10], -- sorted set: pull ids of idle baristas, the longest idle first
  pulls = KEYS[11], -- hash: pull id of an idle barista or of an unconfirmed lease -> see pull_from
  servers = KEYS[12], -- sorted set: servers by the line clock at their last tick
  calls = KEYS[13], -- hash: "n" and server -> number of its latest call, "r": its answer, "s": a settlement is due, "d": departed
  blocked = KEYS[14], -- sorted set: addresses by the time at which they are no longer blocked
  events = KEYS[15], -- stream: 1-tag, 2-tag, ...; each with the tag of the one before
}
local ITEMS_MAX, QUIET_AFTER, AWAY_AFTER = 200, 2500, 60000

-- ARGV: server, number, latest event seen, its tag if that is known, time (tests only), rules and operations.
local server, number, seen, seen_tag = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local rules, operations = unpack(cmsgpack.unpack(ARGV[6]))
rules = {
  lease = rules[1],
  attempts_max = rules[2],
  reconnect_grace = rules[3],
  promise_grace = rules[4],
  replay = rules[5],
  remembered_max = rules[6],
  waiting_max = rules[7],
}

local call, pack, max, min = redis.call, cmsgpack.pack, math.max, math.min

-- --- State ------------------------------------------------------------------------------------------------------------------

local state = { wall = 0, clock = 0, event = 0, tag = 0, ticket = 0, idle = 0, final = 0, ready = 0, busy = 0, finishes = 0, quiet = 0, number = 0 }
local stored = call('GET', keys.meta)
if stored then
  -- The tag of an event is the time of its call: numbers that were lost and given again have other tags.
  local s = state
  s.wall, s.clock, s.ticked, s.event, s.tag, s.ticket, s.idle, s.final, s.ready, s.crew, s.busy, s.finishes, s.quiet, s.brew, s.seen, s.number, s.closed =
    cmsgpack.unpack(stored)
end

local function save_state()
  local s = state
  local clocks = pack(s.wall, s.clock, s.ticked, s.event, s.tag, s.ticket, s.idle, s.final, s.ready)
  call('SET', keys.meta, clocks .. pack(s.crew, s.busy, s.finishes, s.quiet, s.brew, s.seen, s.number, s.closed))
end

local latest = tonumber(call('HGET', keys.calls, 'n' .. server) or nil)
if latest == number then
  return call('HGET', keys.calls, 'r' .. server)
end

-- Whether the latest event that the server has seen is one of this line.
local function is_seen()
  if seen == state.event or not seen_tag then
    return seen <= state.event and (not seen_tag or seen_tag == state.tag)
  end
  local prefix = string.format('%.0f-', seen)
  local entry = call('XRANGE', keys.events, prefix .. '0', prefix .. '18446744073709551615', 'COUNT', 1)[1]
  return entry ~= nil and entry[1] == prefix .. string.format('%.0f', seen_tag)
end

if operations[1] ~= 'Hello' and (latest ~= number - 1 or not is_seen()) then
  return false
end

local time = tonumber(ARGV[5])
if not time then
  local parts = call('TIME')
  time = parts[1] * 1000 + math.floor(parts[2] / 1000)
end
state.wall = max(state.wall, time)
state.ticked = state.ticked or state.wall
-- Tickets grow also over a loss of the counter: new orders stand behind all that are asserted.
state.ticket = max(state.ticket, state.wall * 1000)
-- The line clock: the same for all operations of a call.
local now = state.clock + min(state.wall - state.ticked, 2000)

local function count(key)
  return call('ZCARD', key)
end

-- An order from the fields of its record, in the order of store.rs, and what is stored behind them: line clock at the placing and at
-- the start; pull id of the lease; when it is forgotten; until when it stays although its server was lost; whether it was cancelled
-- because it had no customer any more.
local function order_from(
  stage, attempts, placed, started, ended, customer, barista, details, result, request_id, origin,
  delivered, promised, customers, watchers, ticket, expiries, key, fingerprint, request, attached, report, number, keep,
  placed_at, started_at, pull, forget_at, lost_until, unwanted
)
  return {
    stage = stage,
    attempts = attempts,
    placed = placed,
    started = started,
    ended = ended,
    customer = customer,
    barista = barista,
    details = details,
    result = result,
    request_id = request_id,
    origin = origin,
    delivered = delivered,
    promised = promised,
    customers = customers,
    watchers = watchers,
    ticket = ticket,
    expiries = expiries,
    key = key,
    fingerprint = fingerprint,
    request = request,
    attached = attached,
    report = report,
    number = number,
    keep = keep,
    placed_at = placed_at,
    started_at = started_at,
    pull = pull,
    forget_at = forget_at,
    lost_until = lost_until,
    unwanted = unwanted,
  }
end

local function load(id)
  local bytes = call('HGET', keys.orders, id)
  return bytes and order_from(cmsgpack.unpack(bytes)) or nil
end

local function fields(o)
  local first = pack(o.stage, o.attempts, o.placed, o.started, o.ended, o.customer, o.barista, o.details, o.result, o.request_id, o.origin)
  local second = pack(o.delivered, o.promised, o.customers, o.watchers, o.ticket, o.expiries)
  return first .. second .. pack(o.key, o.fingerprint, o.request, o.attached, o.report, o.number, o.keep)
end

-- The record: an array of 24. An order is not changed between its save and the record that is sent.
local function record(o)
  return '\220\0\24' .. (o.saved or fields(o))
end

local function save(id, o)
  o.saved = fields(o)
  call('HSET', keys.orders, id, o.saved .. pack(o.placed_at, o.started_at, o.pull, o.forget_at, o.lost_until, o.unwanted))
end

-- Server and barista of a pull; after a lease also the order, its attempt, and what it replaced there.
local function pull_from(of, barista, order, attempt, started, started_at, previous)
  return {
    server = of,
    barista = barista,
    order = order,
    attempt = attempt,
    started = started,
    started_at = started_at,
    previous = previous,
  }
end

local function load_pull(pull)
  local bytes = call('HGET', keys.pulls, pull)
  return bytes and pull_from(cmsgpack.unpack(bytes)) or nil
end

local function save_pull(pull, p)
  local replaced = pack(p.started, p.started_at, p.previous)
  call('HSET', keys.pulls, pull, pack(p.server, p.barista, p.order, p.attempt) .. replaced)
end

-- A variant with its content, which is packed.
local function variant(name, content)
  return '\129' .. pack(name) .. content
end

-- An array of packed values.
local function array(values)
  local n = #values
  local header = n < 16 and string.char(0x90 + n) or string.char(0xdc, math.floor(n / 256) % 256, n % 256)
  return header .. table.concat(values)
end

local function emit(name, content)
  state.event = state.event + 1
  local entry = string.format('%.0f-%.0f', state.event, state.wall)
  call('XADD', keys.events, 'MAXLEN', '~', 5000, entry, 'e', '\146' .. pack(state.tag) .. variant(name, content))
  state.tag = state.wall
end

local function emit_order(name, id, o)
  emit(name, '\146' .. pack(id) .. record(o))
end

local function emit_cancelled(id, o, blocked)
  emit('Cancelled', '\148' .. pack(id) .. record(o) .. pack(blocked, o.unwanted or false))
end

-- Until a lease or a grace ends; zero if that is due.
local function remaining(key, id)
  return max(0, call('ZSCORE', key, id) - now)
end

local function leased(id, o, duration)
  return '\147' .. pack(id) .. record(o) .. pack(state.wall + duration)
end

-- --- The crew and its throughput --------------------------------------------------------------------------------------------

local quiet_servers

local function quiet()
  quiet_servers = quiet_servers or {}
  if not quiet_servers.known then
    for _, other in ipairs(call('ZRANGE', keys.servers, '-inf', now - QUIET_AFTER, 'BYSCORE')) do
      quiet_servers[other] = true
      quiet_servers.any = true
    end
    quiet_servers.known = true
  end
  return quiet_servers
end

-- The longest-idle barista of a server that ticks: pull id, pull.
local function first_idle()
  local from, silent = 0, quiet()
  while true do
    local page = call('ZRANGE', keys.idle, from, from + (silent.any and 99 or 0))
    for _, pull in ipairs(page) do
      local p = load_pull(pull)
      if p and not silent[p.server] then
        return pull, p
      end
    end
    if #page == 0 then
      return nil
    end
    from = from + #page
  end
end

local function is_at_work()
  return count(keys.leases) > 0 or first_idle() ~= nil
end

local function measure(at, waited)
  local passed = waited and state.seen and max(0, at - state.seen) or 0
  state.seen = at
  if passed > 0 then
    local secs = passed / 1000
    local decay = math.exp(-secs / 300)
    state.busy = state.busy * decay + secs
    state.finishes = state.finishes * decay
    state.quiet = state.quiet + secs
  end
end

local function advance(waited)
  if state.seen == now then
    return
  end
  waited = waited and state.crew ~= nil
  local left = state.crew and state.crew + AWAY_AFTER
  if left and left < now and not is_at_work() then
    measure(left, waited)
    waited = false
  end
  measure(now, waited)
end

local function see_crew()
  if not state.crew or (state.crew + AWAY_AFTER <= now and not is_at_work()) then
    advance(count(keys.places) > 0)
  end
  state.crew = now
end

local function is_crew_present()
  return (state.crew ~= nil and now - state.crew < AWAY_AFTER) or is_at_work()
end

local function measure_finish(brew, waiting)
  if waiting then
    state.finishes = state.finishes + 1
  end
  state.quiet = 0
  local secs = brew / 1000
  state.brew = state.brew and state.brew + (secs - state.brew) * 1 / 16 or secs
end

local function estimate(before)
  if not state.brew or not is_crew_present() then
    return nil
  end
  local crew = max(count(keys.leases), 1)
  local measured = state.finishes > 0 and state.busy / state.finishes or state.brew / crew
  local per_order = max(measured, state.quiet / crew)
  local wait = math.floor(((before + 1) * per_order + state.brew) * 1000)
  -- A larger number is no integer on the wire, and says nothing.
  return wait < 2 ^ 53 and wait or nil
end
