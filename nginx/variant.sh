#!/usr/bin/env bash
# Copies the configuration somewhere else: the shipped files, only with other addresses, files and times in site/.
# For tests, for demonstrations, and for trying a change on a free port without root.
#
#   nginx/variant.sh DIR DOOR STAFF_DOOR CUSTOMERS STAFF [TIME=VALUE]...
#   nginx -p DIR -c nginx.conf -g 'daemon off;'
#
# DIR is made; DOOR and STAFF_DOOR are what nginx listens on, CUSTOMERS and STAFF where the application is, each as
# ADDRESS:PORT. TIME is a directive of site/times.conf (proxy_read_timeout=2s), or upstream_keepalive for both
# `keepalive_timeout`s of site/upstreams.conf. nginx's files are then DIR/{nginx.pid,access.log,error.log}.
set -euo pipefail

if (($# < 5)); then
  sed -n '2,/^set/ { s/^# \{0,1\}//p }' "$0" >&2
  exit 2
fi
mkdir -p "$1"
dir=$(cd "$1" && pwd)
door=$2 staff_door=$3 customers=$4 staff=$5
shift 5

cp -R "$(dirname "${BASH_SOURCE[0]}")"/{*.conf,site} "$dir/"

# Replaces in a file of site/ what must be there.
change() {
  local file=$dir/site/$1 pattern=$2 replacement=$3
  if ! grep -Eq "$pattern" "$file"; then
    echo "${0##*/}: nothing in site/$1 is like $pattern" >&2
    exit 1
  fi
  sed -E "s|$pattern|$replacement|" "$file" >"$file.new"
  mv "$file.new" "$file"
}

change process.conf '^error_log .*' "error_log error.log info;\npid nginx.pid;"
change files.conf '^access_log [^ ]+ (.*) buffer=.*' "access_log access.log \1;"
for kind in client_body proxy fastcgi uwsgi scgi; do
  echo "${kind}_temp_path tmp-$kind;" >>"$dir/site/files.conf"
done
change listen-customers.conf '^listen 80 ' "listen $door "
change listen-staff.conf '^listen 8080 ' "listen $staff_door "
change upstreams.conf 'server 127\.0\.0\.1:8000;' "server $customers;"
change upstreams.conf 'server 127\.0\.0\.1:8001;' "server $staff;"

for time in "$@"; do
  name=${time%%=*} value=${time#*=}
  case $name in
  upstream_keepalive) change upstreams.conf '^ +keepalive_timeout .*' "    keepalive_timeout $value;" ;;
  *) change times.conf "^$name .*" "$name $value;" ;;
  esac
done
