#!/usr/bin/env bash
# A server on free ports, two groups of customers and ten baristas at a hundredfold speed, the report, and everything
# stopped again. Ends with the rush's exit code, or with 1 when the server did not start or stop as it should.
#
#   simulators/demo.sh [OPTION FOR `simulators rush`]...
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-target}
demo=$target/demo
addresses=$demo/addresses.json
log=$demo/odyssey.log
ready_within_s=30
stop_within_s=90

server=
code=1

# Stops the server and makes its own exit code count.
finish() {
  trap - EXIT
  if [[ -n $server ]]; then
    local stopped=0
    kill -TERM "$server" 2>/dev/null || true
    # The server bounds its own drain; one that is still there after that hangs.
    local deadline=$((SECONDS + stop_within_s))
    while kill -0 "$server" 2>/dev/null && ((SECONDS <= deadline)); do sleep 0.05; done
    kill -KILL "$server" 2>/dev/null || true
    wait "$server" || stopped=$?
    if ((stopped != 0)); then
      echo "demo: the server ended with $stopped, see $log" >&2
      tail -n 20 "$log" >&2
      ((code != 0)) || code=1
    fi
  fi
  exit "$code"
}
trap finish EXIT
trap 'code=130; exit' INT
trap 'code=143; exit' TERM

# The address that the server wrote under this name; nothing until it has.
address() {
  sed -n "s/.*\"$1\"[[:space:]]*:[[:space:]]*\"\([^\"]*\)\".*/\1/p" "$addresses" 2>/dev/null || true
}

cargo build --release -p odyssey -p simulators

mkdir -p "$demo"
rm -f "$addresses"
# In a process group of its own: ctrl-c is for the rush, and the server is stopped once, below.
set -m
ODYSSEY_CUSTOMERS__LISTEN=127.0.0.1:0 ODYSSEY_STAFF__LISTEN=127.0.0.1:0 \
  "$target/release/odyssey" serve --addresses "$addresses" >"$log" 2>&1 &
server=$!
set +m

customers=
staff=
deadline=$((SECONDS + ready_within_s))
until [[ -n $customers && -n $staff ]]; do
  if ! kill -0 "$server" 2>/dev/null || ((SECONDS > deadline)); then
    echo "demo: the server did not get ready, see $log" >&2
    tail -n 20 "$log" >&2
    exit
  fi
  sleep 0.05
  customers=$(address customers)
  staff=$(address staff)
done

code=0
"$target/release/simulators" rush --customers "$customers" --staff "$staff" \
  --speed 100 --groups 2 --every 8m --report-dir "$demo" "$@" || code=$?
