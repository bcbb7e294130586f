-- The zone of a courier, and how often they moved: `claim` sets it if there is none, `move` if it is newer.
local zone, sequence = unpack(redis.call('HMGET', KEYS[1], 'zone', 'sequence'))
local to, number = ARGV[2], ARGV[3]
if not zone or (ARGV[1] == 'move' and tonumber(sequence) < tonumber(number)) then
  redis.call('HSET', KEYS[1], 'zone', to, 'sequence', number)
  zone, sequence = to, number
end
return { zone, sequence }
