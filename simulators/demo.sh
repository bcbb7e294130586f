#!/usr/bin/env bash
# A server and a real nginx before it on free ports, two rushes of 200 regulars through nginx at a hundredfold speed, the
# second with a flooder among them, the comparison, and everything stopped again. Ends with the rush's exit code: 0 only
# if every regular got a 200 and the flooder was cut off; or with 1 when something did not start or stop as it should.
# Installs Debian's nginx if there is none.
#
#   simulators/demo.sh [OPTION FOR `simulators rush`]...
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-target}
demo=$target/demo
addresses=$demo/addresses.json
log=$demo/odyssey.log
door=$demo/nginx
ready_within_s=30
stop_within_s=90

server=
nginx=
code=1

# Reports an error, with the end of the log that explains it.
complain() {
  echo "demo: $1, see $2" >&2
  tail -n 20 "$2" >&2 || true
}

# Stops a process with this signal, and its whole group if that does not help; makes its own exit code count:
# NAME PID SIGNAL LOG.
stop() {
  local name=$1 pid=$2 signal=$3 log=$4 stopped=0
  kill "-$signal" "$pid" 2>/dev/null || true
  # Both bound what they still have to do; one that is there after that hangs.
  local deadline=$((SECONDS + stop_within_s))
  while kill -0 "$pid" 2>/dev/null && ((SECONDS <= deadline)); do sleep 0.05; done
  kill -KILL -- "-$pid" 2>/dev/null || true
  wait "$pid" || stopped=$?
  if ((stopped != 0)); then
    complain "$name ended with $stopped" "$log"
    ((code != 0)) || code=1
  fi
}

finish() {
  trap - EXIT
  # A second ctrl-c must not leave half of it running.
  trap '' INT TERM
  [[ -z $nginx ]] || stop nginx "$nginx" QUIT "$door/error.log"
  [[ -z $server ]] || stop "the server" "$server" TERM "$log"
  exit "$code"
}
trap finish EXIT
trap 'code=130; exit' INT
trap 'code=143; exit' TERM

# Debian keeps it where only root's PATH leads. The service that its package starts is none of this script's business.
find_nginx() { PATH=$PATH:/usr/sbin command -v nginx; }

install_nginx() {
  if ! command -v apt-get >/dev/null; then
    echo "demo: nginx is missing; install it with your system's package manager" >&2
    exit
  fi
  echo "Installing nginx-light ..."
  local as_root=()
  [[ $(id -u) == 0 ]] || as_root=(sudo)
  "${as_root[@]}" apt-get update -q >/dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends nginx-light >/dev/null
}

# The address that the server wrote under this name, without its scheme; nothing until it has.
address() {
  sed -n "s/.*\"$1\"[[:space:]]*:[[:space:]]*\"http:\/\/\([^\"]*\)\".*/\1/p" "$addresses" 2>/dev/null || true
}

# A port below those that connections take by themselves. It may be in use: then nginx says so, and another is tried.
some_port() { echo $((20000 + RANDOM % 10000)); }

# Whether a process listens on this port of 127.0.0.1.
answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

find_nginx >/dev/null || install_nginx
nginx_program=$(find_nginx)
cargo build --profile quick --locked -p odyssey -p simulators --no-default-features

mkdir -p "$demo"
rm -f "$addresses"
# In process groups of their own: ctrl-c is for the rush, and the rest is stopped once, above.
set -m
# All settings except these are the defaults: nginx passes the customers' addresses to the server.
ODYSSEY_CUSTOMERS__LISTEN=127.0.0.1:0 ODYSSEY_STAFF__LISTEN=127.0.0.1:0 \
  ODYSSEY_FLOOD__TRUSTED_PROXIES=127.0.0.1/32 ODYSSEY_DATA_DIR="$demo/data" \
  "$target/quick/odyssey" serve --addresses "$addresses" >"$log" 2>&1 &
server=$!
set +m

customers=
staff=
deadline=$((SECONDS + ready_within_s))
until [[ -n $customers && -n $staff ]]; do
  if ! kill -0 "$server" 2>/dev/null || ((SECONDS > deadline)); then
    complain "the server did not get ready" "$log"
    exit
  fi
  sleep 0.05
  customers=$(address customers)
  staff=$(address staff)
done

for _ in {1..10}; do
  port=$(some_port)
  rm -rf "$door"
  nginx/variant.sh "$door" "127.0.0.1:$port" "127.0.0.1:$(some_port)" "$customers" "$staff"
  : >"$door/error.log"
  set -m
  "$nginx_program" -p "$door" -c nginx.conf -g 'daemon off;' 2>>"$door/error.log" &
  nginx=$!
  set +m
  until [[ -s $door/nginx.pid ]] && answers "$port"; do
    if ! kill -0 "$nginx" 2>/dev/null || ((SECONDS > deadline)); then break; fi
    sleep 0.05
  done
  if [[ -s $door/nginx.pid ]] && kill -0 "$nginx" 2>/dev/null; then break; fi
  kill -KILL -- "-$nginx" 2>/dev/null || true
  wait "$nginx" || true
  nginx=
done
if [[ -z $nginx ]]; then
  complain "nginx did not get ready" "$door/error.log"
  exit
fi

# Four groups that the crew is just done with before the next one comes; the flooder comes with the second. Flood control
# uses real time and is not a hundred times faster: what he gets brewed until he is cut off looks that much larger.
code=0
"$target/quick/simulators" rush --customers "http://127.0.0.1:$port" --staff "http://$staff" \
  --speed 100 --groups 4 --group-min 50 --group-max 50 --arrival steady --every 5m \
  --flood --flood-after 5m --report-dir "$demo" "$@" || code=$?
