#!/usr/bin/env bash
# Runs a command beside the engines that tests share, two emulators of AWS and a Redis cluster, on free ports of 127.0.0.1. Stops
# them when the command has ended; its exit code is the command's. Usage: with-engines.sh COMMAND...
#
# The command finds in its environment
#   EMULATOR_ADDRESSES   the emulators' URLs, separated by a space: each is one thread of Python, and a test uses one of them
#   EMULATOR_PROGRAM     the emulator's program, for starting further ones
#   REDIS_CLUSTER        a directory of the cluster, with a directory for each node: redis.conf and redis.sock
set -euo pipefail

# How long an engine may take to answer. Only a failure takes that long.
limit_s=60

venv=$(cd "$(dirname "$0")/.." && pwd)/target/emulator
moto=$(cd "$(dirname "$0")" && pwd)/emulator
(($#)) || {
  echo "usage: ${0##*/} COMMAND..." >&2
  exit 2
}
[ -x "$venv/bin/moto_server" ] || {
  echo "There is no emulator in target/emulator: scripts/install-tools.sh test puts it there." >&2
  exit 1
}

dir=$(mktemp -d)
engines=()

# They store nothing, so they are killed; and the shell's message about that would be the last line. The cluster's directory
# goes too: a node that finds the nodes.conf of an earlier start has the slots and the peers of that one.
stop() {
  ((${#engines[@]} == 0)) || { kill -KILL "${engines[@]}" && wait "${engines[@]}"; } 2>/dev/null || true
  engines=()
  rm -rf "$dir/cluster"
}
trap 'stop; rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs an engine in the background, with a log; killed with this script, if it is not stopped before. Usage: engine LOG COMMAND...
engine() {
  setpriv --pdeathsig KILL "${@:2}" </dev/null >"$1" 2>&1 &
  engines+=("$!")
}

# Waits until a command succeeds. Fails if an engine ends, or if there is no answer in time.
await() {
  local deadline=$((SECONDS + limit_s)) pid
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    # One by one: of several, `kill` succeeds if one is alive.
    for pid in "${engines[@]}"; do
      kill -0 "$pid" 2>/dev/null || return 1
    done
    sleep 0.1
  done
}

free_ports() {
  "$venv/bin/python" -c '
import socket, sys
taken = [socket.socket() for _ in range(int(sys.argv[1]))]
for one in taken: one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in taken))' "$1"
}

# Its log says that it has the port, so that another process on the port is not taken for it; then a request checks it.
emulator_answers() {
  grep -qs 'Running on' "$dir/emulator-$1.log" && (
    exec 3<>"/dev/tcp/127.0.0.1/$1"
    printf 'GET /moto-api/ HTTP/1.0\r\n\r\n' >&3
    read -r -t 10 status <&3
    [[ $status == *' 200 '* ]]
  ) 2>/dev/null
}

cluster_answers() {
  local node
  for node in 1 2 3; do
    redis-cli -s "$dir/cluster/$node/redis.sock" CLUSTER INFO 2>/dev/null | grep -q '^cluster_state:ok' || return 1
  done
}

# Three nodes that share the slots.
start_cluster() {
  local node first=0 last
  for node in 1 2 3; do
    mkdir -p "$dir/cluster/$node"
    printf '%s\n' "port ${ports[node]}" "cluster-port ${ports[node + 3]}" 'bind 127.0.0.1' 'unixsocket redis.sock' \
      'cluster-enabled yes' 'save ""' 'appendonly no' "dir $dir/cluster/$node" >"$dir/cluster/$node/redis.conf"
    engine "$dir/redis-$node.log" env -C "$dir/cluster/$node" redis-server redis.conf
  done
  for node in 1 2 3; do
    await redis-cli -s "$dir/cluster/$node/redis.sock" PING >/dev/null 2>&1 || return 1
    last=$((node == 3 ? 16383 : first + 5460))
    redis-cli -s "$dir/cluster/$node/redis.sock" CLUSTER ADDSLOTSRANGE "$first" "$last" >/dev/null
    first=$((last + 1))
    ((node == 1)) || redis-cli -s "$dir/cluster/1/redis.sock" \
      CLUSTER MEET 127.0.0.1 "${ports[node]}" "${ports[node + 3]}" >/dev/null
  done
}

# Fails if a port was taken since it was found free.
start() {
  local port
  read -ra ports < <(free_ports 8)
  for port in "${ports[0]}" "${ports[7]}"; do
    engine "$dir/emulator-$port.log" "$moto" -H 127.0.0.1 -p "$port"
  done
  start_cluster && await emulator_answers "${ports[0]}" && await emulator_answers "${ports[7]}" && await cluster_answers && return
  stop
  return 1
}

start || start || start || {
  echo "The engines do not start:" >&2
  tail -n 20 "$dir"/*.log >&2
  exit 1
}

export EMULATOR_ADDRESSES="http://127.0.0.1:${ports[0]} http://127.0.0.1:${ports[7]}"
export EMULATOR_PROGRAM=$moto REDIS_CLUSTER=$dir/cluster
"$@"
