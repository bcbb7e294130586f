
-- --- The call ---------------------------------------------------------------------------------------------------------------

-- The first write: if Redis refuses writes, it refuses this one, and nothing is applied.
save_state()
local replies, defect = {}, nil
for i, operation in ipairs(operations) do
  local kind, content = operation, nil
  if type(operation) == 'table' then
    kind, content = next(operation)
  end
  local done, reply = pcall(apply[kind], content)
  if not done then
    defect = defect or kind .. ': ' .. (type(reply) == 'table' and reply.err or tostring(reply))
    reply = DONE
  end
  replies[i] = reply
end
save_state()
local answer = '\147' .. pack(state.wall) .. array(replies) .. pack(defect)
call('HSET', keys.calls, 'n' .. server, number, 'r' .. server, answer)
return answer
