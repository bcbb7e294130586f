#!/bin/sh
# Installs the peers the server is measured against, where they are missing: from Debian's packages, and Python's packages
# into a virtual environment in the target directory.
# Debian starts a service with most of its packages; the measurements do not use those but start their own on free ports.
set -eu

cd "$(dirname "$0")/.."
# Daemons are not on every user's path.
PATH="$PATH:/usr/sbin:/usr/local/sbin"

missing=""
command -v gearmand >/dev/null || missing="$missing gearman-job-server"
command -v nats-server >/dev/null || missing="$missing nats-server"
command -v redis-server >/dev/null || missing="$missing redis-server"
{ command -v setpriv && command -v taskset; } >/dev/null || missing="$missing util-linux"
# Debian's Python comes without what makes an environment.
python3 -m ensurepip --version >/dev/null 2>&1 || missing="$missing python3-venv"

if [ -n "$missing" ]; then
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
fi

environment="${CARGO_TARGET_DIR:-target}/peers"
# The copy of the list is written last: it says that all of it is there.
if ! cmp -s bench/peers/requirements.txt "$environment/requirements.txt"; then
  echo "install-peers: installing bench/peers/requirements.txt into $environment" >&2
  python3 -m venv --clear "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: -r bench/peers/requirements.txt
  cp bench/peers/requirements.txt "$environment/requirements.txt"
fi
