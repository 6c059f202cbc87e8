#!/usr/bin/env bash
# Fails when gen/ is not what proto/ generates, or when a change of proto/ would break a client.
# What the machine cannot generate is said and left out.
set -euo pipefail
cd "$(dirname "$0")/.."

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT

folders=(gen/python)
languages=python
absent=()
for program in npm go; do command -v "$program" >/dev/null 2>&1 || absent+=("$program"); done
if [ ${#absent[@]} -eq 0 ]; then
  folders+=(gen/typescript gen/go/onbelay)
  languages="python typescript go"
else
  echo "verify: gen/typescript and gen/go are not checked: ${absent[*]} not found"
fi

ONBELAY_GEN=$languages scripts/gen.sh "$temporary"
for folder in "${folders[@]}"; do
  if ! diff --recursive --exclude=__pycache__ "$folder" "$temporary/$folder" >"$temporary/diff"; then
    head -n 40 "$temporary/diff"
    echo "verify: $folder is not what proto/ generates; run make gen" >&2
    exit 1
  fi
done
echo "verify: ${folders[*]}: just what proto/ generates"

# The last release counts. Before the first, the place where this line of work left main, and on
# main itself the commit before: comparing main with main would find nothing.
baseline=$(git describe --tags --abbrev=0 2>/dev/null || true)
if [ -z "$baseline" ]; then
  for main in origin/main main; do
    if baseline=$(git merge-base HEAD "$main" 2>/dev/null); then break; fi
  done
  if [ -z "$baseline" ] || [ "$baseline" = "$(git rev-parse HEAD 2>/dev/null)" ]; then
    baseline=$(git rev-parse --verify --quiet 'HEAD^' || true)
  fi
fi
if [ -z "$baseline" ] || ! git cat-file -e "$baseline:buf.yaml" 2>/dev/null; then
  echo "verify: no earlier contract to compare with"
  exit 0
fi
mkdir "$temporary/before"
git archive "$baseline" buf.yaml proto | tar -x -C "$temporary/before"
PATH=$PWD/.venv/bin:$PATH
command -v buf >/dev/null 2>&1 || { echo "verify: buf is needed and not found" >&2; exit 1; }
buf breaking --against "$temporary/before"
echo "verify: proto/ breaks no client of $baseline"
