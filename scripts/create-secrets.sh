#!/usr/bin/env bash
# Creates secrets/ for docker-compose.yml: access/tokens.toml, which the server reads, and a token each for an operator, a
# barista and Prometheus. Changes nothing if that file is there. `make up` runs it.
#
#   scripts/create-secrets.sh
#
# Needs Docker: tokens are created by the server's image, which is built if it is missing.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

complain() {
  echo "create-secrets: $1" >&2
  exit 1
}

[[ ! -s secrets/access/tokens.toml ]] || exit 0
[[ ! -e secrets ]] || complain "secrets/ has no access/tokens.toml; restore it, or remove secrets/ (Docker, as root, creates an empty one for \`docker compose up\`)"
docker image inspect odyssey >/dev/null 2>&1 || docker compose build odyssey

# Whom the files belong to. Root in a rootless Docker is the user who runs it.
user=$(id -u):$(id -g)
[[ $(docker info --format '{{.SecurityOptions}}') != *name=rootless* ]] || user=0:0

# Next to it, and renamed at the end: secrets/ is complete or missing.
new=$(mktemp -d "$PWD/secrets.XXXXXX")
trap 'rm -rf "$new"' EXIT
mkdir "$new/access"
for role in operator barista scraper; do
  docker run --rm --network none --user "$user" --volume "$new/access:/access" odyssey \
    token new --role "$role" --name "$role" --file /access/tokens.toml >"$new/$role.token"
done

# Containers read these files as users of their own. On this machine secrets/ itself admits its owner only.
chmod 0644 "$new"/*.token "$new/access/tokens.toml"
chmod 0755 "$new/access"
chmod 0700 "$new"
mv "$new" secrets
trap - EXIT

cat <<'END'
Created secrets/ with tokens for an operator, a barista and Prometheus. Keep it secret.
In a browser: http://127.0.0.1:8080/login, with the text of secrets/operator.token.
END
