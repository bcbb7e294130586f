#!/usr/bin/env bash
# Pins every base image by digest: writes NAME:TAG@sha256:... where docker-compose.yml, Dockerfile and the workflows say
# NAME:TAG. Run again, it moves each pin to the digest the tag has now. Needs the network, and docker with buildx.
# The images that are built here have no registry, and so no digest.
set -euo pipefail

cd "$(dirname "$0")/.."

files=(Dockerfile docker-compose.yml .github/workflows/ci.yml)
ours='odyssey|odyssey-simulators'

# NAME:TAG of each `FROM NAME:TAG` and `image: NAME:TAG`, without its digest. A stage of the Dockerfile has no tag.
images() {
  sed -nE 's/^(FROM|[[:space:]]*image:)[[:space:]]+([^[:space:]@]+:[^[:space:]@]+)(@[^[:space:]]+)?([[:space:]].*)?$/\2/p' "${files[@]}" |
    sort -u | grep -vxE "$ours"
}

# All digests first: a registry that does not answer leaves every file as it was.
edits=()
while read -r image; do
  digest=$(docker buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}')
  [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]] || {
    echo "${0##*/}: $image has no digest: ${digest:-no answer}" >&2
    exit 1
  }
  echo "$image@$digest"
  name=${image//./\\.}
  edits+=(-e "s#^((FROM|[[:space:]]*image:)[[:space:]]+$name)(@sha256:[0-9a-f]+)?([[:space:]].*)?\$#\\1@$digest\\4#")
done < <(images)
sed -i -E "${edits[@]}" "${files[@]}"
