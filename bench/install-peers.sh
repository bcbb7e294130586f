#!/bin/sh
# Installs the peers the server is measured against, where they are missing, from Debian's packages.
# Debian starts a service with each of them; the measurements do not use those but start their own on free ports.
set -eu

# Daemons are not on every user's path.
PATH="$PATH:/usr/sbin:/usr/local/sbin"

missing=""
command -v gearmand >/dev/null || missing="$missing gearman-job-server"
command -v nats-server >/dev/null || missing="$missing nats-server"
command -v redis-server >/dev/null || missing="$missing redis-server"
command -v setpriv >/dev/null || missing="$missing util-linux"

if [ -z "$missing" ]; then
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "install-peers: no apt-get here; install what has these Debian packages' programs:$missing" >&2
  exit 1
fi

if [ "$(id -u)" -eq 0 ]; then
  as_root=""
else
  as_root="sudo"
fi
echo "install-peers: installing$missing" >&2
# Both variables are lists of words, or empty.
# shellcheck disable=SC2086
$as_root apt-get update -qq && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
