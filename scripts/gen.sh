#!/usr/bin/env bash
# Generates gen/ from proto/, or with a folder's name the same below that folder.
# Tools are kept in .venv/gen at the versions written down here and in the lock files.
#
#   scripts/gen.sh [FOLDER]          all three languages
#   ONBELAY_GEN=python scripts/gen.sh   Python only: needs neither Node nor Go
set -euo pipefail
cd "$(dirname "$0")/.."

PROTOC_GEN_GO=v1.36.11
PROTOC_GEN_GO_GRPC=v1.6.2

out=${1:-.}
languages=${ONBELAY_GEN:-python typescript go}
tools=$PWD/.venv/gen
mkdir -p "$tools"

wants() { [[ " $languages " == *" $1 "* ]]; }

need() {
  command -v "$1" >/dev/null 2>&1 || { echo "gen: $1 is needed for $2 and not found" >&2; exit 1; }
}

# Runs the rest of its arguments unless tool set $1 was already made from exactly $2.
once() {
  local stamp=$tools/$1.stamp state=$2
  shift 2
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$state" ] && return
  "$@"
  printf '%s\n' "$state" >"$stamp"
}

digest() { cat "$@" | sha256sum | cut -d ' ' -f 1; }

make_python() {
  local interpreter=.venv/bin/python
  [ -x "$interpreter" ] || interpreter=python3
  "$interpreter" -m venv --clear "$tools/python"
  "$tools/python/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --require-hashes -r requirements-gen.lock
}

make_typescript() {
  mkdir -p "$tools/typescript"
  cp scripts/gen/package.json scripts/gen/package-lock.json scripts/gen/.npmrc "$tools/typescript"
  npm ci --prefix "$tools/typescript" --no-audit --no-fund --silent
}

make_go() {
  GOBIN=$tools/go GOFLAGS='' go install "google.golang.org/protobuf/cmd/protoc-gen-go@$PROTOC_GEN_GO"
  GOBIN=$tools/go GOFLAGS='' go install "google.golang.org/grpc/cmd/protoc-gen-go-grpc@$PROTOC_GEN_GO_GRPC"
}

# A temporary folder takes what is generated; only when all went well does it replace the old.
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

if wants python; then
  once python "$(digest requirements-gen.lock)" make_python
  mkdir -p "$fresh/gen/python"
  mapfile -t protos < <(find proto -name '*.proto' | LC_ALL=C sort)
  mapfile -t services < <(find proto -name '*_service.proto' | LC_ALL=C sort)
  protoc() { PATH=$tools/python/bin:$PATH "$tools/python/bin/python" -m grpc_tools.protoc -Iproto "$@"; }
  protoc --python_out="$fresh/gen/python" --mypy_out=quiet:"$fresh/gen/python" "${protos[@]}"
  protoc --grpc_python_out="$fresh/gen/python" --mypy_grpc_out=quiet:"$fresh/gen/python" "${services[@]}"
fi

if wants typescript || wants go; then
  PATH=$PWD/.venv/bin:$PATH
  need buf "typescript and go"
  need npm typescript
  need go go
  once typescript "$(digest scripts/gen/package-lock.json)" make_typescript
  once go "$PROTOC_GEN_GO $PROTOC_GEN_GO_GRPC" make_go
  PATH=$tools/typescript/node_modules/.bin:$tools/go:$PATH buf generate --output "$fresh"
fi

# gen/go keeps its module files beside what is generated.
for folder in gen/python gen/typescript gen/go/onbelay; do
  [ -d "$fresh/$folder" ] || continue
  rm -rf "${out:?}/$folder"
  mkdir -p "$out/$(dirname "$folder")"
  mv "$fresh/$folder" "$out/$folder"
done
