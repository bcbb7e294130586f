#!/usr/bin/env bash
# Runs a command beside an emulator of Amazon's services, on a free port of 127.0.0.1, and ends the emulator when the
# command has ended. Its exit code is the command's, and its last words too. Usage: with-emulator.sh COMMAND...
#
# The command finds in its environment
#   EMULATOR_ADDRESS   the emulator's address
#   EMULATOR_PROGRAM  the emulator's program, for starting further ones
set -euo pipefail

# How long the emulator may take to answer. Only a failure takes that long.
patience_s=60

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
emulator=

# It keeps nothing, so it need not be asked politely; and the shell's remark about it would be the last line.
stop() {
  [ -z "$emulator" ] || { kill -KILL "$emulator" && wait "$emulator"; } 2>/dev/null || true
  emulator=
}
trap 'stop; rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

free_port() {
  "$venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Its log says that it has the port, so that another process on the port is not mistaken for it; then a request checks it.
answers() {
  grep -qs 'Running on' "$dir/log" && (
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    printf 'GET /moto-api/ HTTP/1.0\r\n\r\n' >&3
    read -r -t 10 status <&3
    [[ $status == *' 200 '* ]]
  ) 2>/dev/null
}

# Fails if the port was taken since it was found free, or if there is no answer in time.
start() {
  port=$(free_port)
  # Killed with this script, if it is not stopped before.
  setpriv --pdeathsig KILL "$moto" -H 127.0.0.1 -p "$port" </dev/null >"$dir/log" 2>&1 &
  emulator=$!
  local deadline=$((SECONDS + patience_s))
  until answers; do
    if ! kill -0 "$emulator" 2>/dev/null || ((SECONDS >= deadline)); then
      stop
      return 1
    fi
    sleep 0.1
  done
}

start || start || start || {
  echo "The emulator does not start:" >&2
  tail -n 20 "$dir/log" >&2
  exit 1
}

export EMULATOR_ADDRESS=http://127.0.0.1:$port EMULATOR_PROGRAM=$moto
"$@"
