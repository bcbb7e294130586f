#!/usr/bin/env bash
# Installs what `make check`, `make advisories` or `make test` needs and this machine lacks.
# Usage: install-tools.sh check|advisories|test
set -euo pipefail

cd "$(dirname "$0")/.."

# Whether there is a command; of Python, `python:MODULE`, a module.
have() {
  case $1 in
  python:*) python3 -c "import ${1#python:}" >/dev/null 2>&1 ;;
  *) command -v "$1" >/dev/null 2>&1 ;;
  esac
}

# Debian's packages by the command, or module of Python, that each brings.
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

# Programs of Python's package index, in a virtual environment of their own: target/NAME. Usage: virtual NAME REQUIREMENT...
virtual() {
  local venv=target/$1 requirements=("${@:2}")
  # Written last, so that an installation that was interrupted counts for nothing. A virtual environment cannot be moved.
  [ "$(cat "$venv/installed" 2>/dev/null)" = "${requirements[*]} in $PWD" ] && "$venv/bin/python" -c '' 2>/dev/null && return 0
  echo "Installing ${requirements[*]} ..."
  python3 -m venv --clear "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${requirements[@]}"
  echo "${requirements[*]} in $PWD" >"$venv/installed"
}

# Terraform is in none of the sources above.
has_terraform() {
  have terraform && return 0
  echo "Missing: terraform, version 1.9 or later. See https://developer.hashicorp.com/terraform/install" >&2
  exit 1
}

case ${1:-} in
check)
  has_terraform
  debian cc gcc make make shellcheck shellcheck shfmt shfmt python3 python3 python:ensurepip python3-venv
  subcommand deny '^0.20'
  virtual checkov 'checkov==3.3.30'
  ;;
advisories)
  subcommand deny '^0.20'
  ;;
test)
  debian cc gcc make make curl curl nginx nginx-light chromium chromium chromedriver chromium-driver promtool prometheus openssl openssl redis-server redis-server python3 python3 python:ensurepip python3-venv
  subcommand nextest '^0.9'
  virtual emulator 'moto[server]==5.2.5'
  virtual api 'openapi-spec-validator==0.9.0' 'schemathesis==4.32.5'
  ;;
*)
  echo "usage: ${0##*/} check|advisories|test" >&2
  exit 2
  ;;
esac
