-- At most so many entries of a zone's log from a number on, and the zone's next number. If the zone is behind a given number,
-- it is advanced to it: later entries have at least that number.
local log, clock = unpack(KEYS)
local from, count, floor = unpack(ARGV)
local time = redis.call('TIME')
local next = math.max(time[1] * 1000000 + time[2], tonumber(redis.call('GET', clock) or '0') + 1)
if next < tonumber(floor) then
  next = tonumber(floor)
  redis.call('SET', clock, string.format('%d', next - 1))
end
return { string.format('%d', next), redis.call('XRANGE', log, from, '+', 'COUNT', count) }
