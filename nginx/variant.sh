#!/usr/bin/env bash
# Copies the configuration somewhere else: the shipped files, only with other addresses, files and times in site/.
# For tests, for demonstrations, and for trying a change on a free port without root.
#
#   nginx/variant.sh DIR LISTEN STAFF_LISTEN CUSTOMERS STAFF [TIME=VALUE]...
#   nginx -p DIR -c nginx.conf -g 'daemon off;'
#
# DIR is created; nginx listens on LISTEN and STAFF_LISTEN; CUSTOMERS and STAFF are where the application listens, each as
# ADDRESS:PORT. With several servers, both are lists with commas, in the same order: requests are then sent again to another
# server when theirs is lost (resend.conf), and the first server is the owner (site/desks.conf). TIME is a directive of
# site/times.conf (proxy_read_timeout=2s), or upstream_keepalive for every `keepalive_timeout` of site/upstreams.conf; with
# several servers also proxy_connect_timeout. nginx's files are then DIR/{nginx.pid,access.log,error.log}.
set -euo pipefail

if (($# < 5)); then
  sed -n '2,/^set/ { s/^# \{0,1\}//p }' "$0" >&2
  exit 2
fi
mkdir -p "$1"
dir=$(cd "$1" && pwd)
listen=$2 staff_listen=$3
IFS=, read -ra customers <<<"$4"
IFS=, read -ra staff <<<"$5"
shift 5
if ((${#customers[@]} != ${#staff[@]})); then
  echo "${0##*/}: each server has two listeners: ${#customers[@]} for customers, ${#staff[@]} for staff" >&2
  exit 2
fi

cp -R "$(dirname "${BASH_SOURCE[0]}")"/{*.conf,site} "$dir/"

# Replaces in a file what must be there.
change() {
  local file=$dir/$1 pattern=$2 replacement=$3
  if ! grep -Eq "$pattern" "$file"; then
    echo "${0##*/}: nothing in $1 is like $pattern" >&2
    exit 1
  fi
  sed -E "s|$pattern|$replacement|" "$file" >"$file.new"
  mv "$file.new" "$file"
}

change site/process.conf '^error_log .*' "error_log error.log info;\npid nginx.pid;"
change site/files.conf '^access_log [^ ]+ (.*) buffer=.*' "access_log access.log \1;"
for kind in client_body proxy fastcgi uwsgi scgi; do
  echo "${kind}_temp_path tmp-$kind;" >>"$dir/site/files.conf"
done
change site/listen-customers.conf '^listen 80 ' "listen $listen "
change site/listen-staff.conf '^listen 8080 ' "listen $staff_listen "

# A group of upstreams.conf: its name, how many idle connections it keeps, its method, its servers.
group() {
  local name=$1 keepalive=$2 method=$3
  shift 3
  echo "upstream $name {"
  [[ -z $method ]] || printf '    %s;\n' "$method"
  printf '    server %s max_fails=0;\n' "$@"
  printf '    keepalive %s;\n    keepalive_timeout 10s;\n}\n' "$keepalive"
}

if ((${#customers[@]} == 1)); then
  change site/upstreams.conf 'server 127\.0\.0\.1:8000;' "server ${customers[0]};"
  change site/upstreams.conf 'server 127\.0\.0\.1:8001;' "server ${staff[0]};"
else
  {
    group customers 64 "hash \$visitor consistent" "${customers[@]}"
    group customers_owner 64 '' "${customers[0]}"
    group staff 16 $'zone staff 64k;\n    least_conn' "${staff[@]}"
    group staff_owner 16 '' "${staff[0]}"
  } >"$dir/site/upstreams.conf"
  change site/desks.conf '^( +)# ("~.* [a-z]+_owner;)' '\1\2'
  change site/resend-customers.conf '^# (include resend-customers\.conf;)' '\1'
  change site/resend-staff.conf '^# (include resend-staff\.conf;)' '\1'
fi

for time in "$@"; do
  name=${time%%=*} value=${time#*=}
  case $name in
  upstream_keepalive) change site/upstreams.conf '^ +keepalive_timeout .*' "    keepalive_timeout $value;" ;;
  *) change site/times.conf "^$name .*" "$name $value;" ;;
  esac
  [[ $name != proxy_connect_timeout ]] || change resend.conf "^$name .*" "$name $value;"
done
