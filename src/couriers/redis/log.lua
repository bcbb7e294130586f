-- Entries of a zone's log from a number on, so many at most, and the time: what comes later has a later number.
local time = redis.call('TIME')
local now = string.format('%d', time[1] * 1000000 + time[2])
return { now, redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2]) }
