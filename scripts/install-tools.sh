#!/usr/bin/env bash
# Installs what `make check` or `make test` needs and this machine lacks. Usage: install-tools.sh check|test
set -euo pipefail

have() { command -v "$1" >/dev/null 2>&1; }

# Debian's packages by the command that each brings.
debian() {
  local missing=()
  while (($#)); do
    have "$1" || missing+=("$2")
    shift 2
  done
  ((${#missing[@]})) || return 0
  have apt-get || {
    echo "Missing: ${missing[*]}. Install them with your system's package manager." >&2
    exit 1
  }
  local as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  echo "Installing ${missing[*]} ..."
  "${as_root[@]}" apt-get update -q >/dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
}

# A cargo subcommand, built from its published crate.
subcommand() {
  have "cargo-$1" && return 0
  echo "Installing cargo-$1 ..."
  cargo install --quiet --locked "cargo-$1" --version "$2"
}

case ${1:-} in
check)
  debian cc gcc make make shellcheck shellcheck shfmt shfmt
  subcommand deny '^0.20'
  ;;
test)
  debian cc gcc make make nginx nginx-light
  subcommand nextest '^0.9'
  ;;
*)
  echo "usage: ${0##*/} check|test" >&2
  exit 2
  ;;
esac
