#!/usr/bin/env bash
# Runs data-cleanup on a table from first call to last file, with a gRPC command line alone:
# grpcurl where it is installed, else `buf curl`. Both learn the services by reflection.
#
#   onbelay serve                                     in another terminal, where none runs yet
#   clients/curl/data_cleanup.sh [TABLE.csv] [FOLDER]
#
# ONBELAY_SERVER   host:port, 127.0.0.1:50051 by default
# ONBELAY_API_KEY  the credential; by default the local server's developer token
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
table=${1:-$root/src/onbelay_server/blueprints/data_cleanup/examples/chicago-early-childhood.csv}
folder=${2:-onbelay-curl}
server=${ONBELAY_SERVER:-127.0.0.1:50051}
state=${ONBELAY_STATE_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/onbelay}
key=${ONBELAY_API_KEY:-$(cat "$state/developer-token")}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# In a file rather than an argument: arguments are seen by everybody on the machine.
(umask 077 && printf 'authorization: Bearer %s\n' "$key" >"$work/headers")
export ONBELAY_API_KEY=$key

# call Service/Method: the request as JSON on stdin, every reply as JSON on stdout.
if [ "${ONBELAY_CURL:-}" != buf ] && command -v grpcurl >/dev/null; then
  call() {
    grpcurl -plaintext -max-time 120 -expand-headers \
      -H "authorization: Bearer \${ONBELAY_API_KEY}" -d @ "$server" "onbelay.v1.$1"
  }
  services() {
    grpcurl -plaintext -expand-headers -H "authorization: Bearer \${ONBELAY_API_KEY}" \
      "$server" list
  }
elif command -v buf >/dev/null; then
  options=(--protocol grpc --http2-prior-knowledge -H "@$work/headers" --reflect-header "@$work/headers")
  call() { buf curl "${options[@]}" -d @- "http://$server/onbelay.v1.$1"; }
  services() { buf curl "${options[@]}" --list-services "http://$server"; }
else
  echo "needs grpcurl or buf" >&2
  exit 2
fi

# field NAME: the first value of that name in the JSON on stdin. buf writes bodySha256 where grpcurl,
# from the same descriptors, writes body_sha256: NAME may be a regular expression.
field() { sed -nE "s/.*\"($1)\": *\"([^\"]*)\".*/\\2/p" | sed -n 1p; }
sha256() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d' ' -f1; }
name=$(date +%s)-$$

echo "== The services, by reflection"
services

echo "== Upload $(basename "$table") in chunks of at most 512 KB"
size=$(wc -c <"$table")
offset=0
step=524288
while :; do
  next=$((offset + step))
  last=false
  if [ "$next" -ge "$size" ]; then last=true; fi
  {
    printf '{"uploadId": "upload-%s", "name": "input.csv", "mediaType": "text/csv",' "$name"
    printf '"offsetBytes": %d, "finish": %s, "content": "' "$offset" "$last"
    dd if="$table" bs="$step" skip=$((offset / step)) count=1 2>/dev/null | base64 | tr -d '\n'
    printf '"}'
  } >"$work/chunk"
  call RunService/PutArtifact <"$work/chunk" >"$work/uploaded"
  if $last; then break; fi
  offset=$next
done
upload=$(field id <"$work/uploaded")
echo "$upload, $size bytes"

echo "== Start"
call RunService/StartRun >"$work/started" <<JSON
{"requestId": "start-$name", "agent": "data-cleanup", "input": {},
 "inputArtifacts": {"input.csv": "$upload"}, "title": "From a shell"}
JSON
run=$(field id <"$work/started")
echo "$run"

echo "== Watch it (every reply is kept in $folder/watch.json)"
mkdir -p "$folder"
printf '{"runId": "%s", "afterSequence": 0}' "$run" |
  call RunService/WatchRun >"$folder/watch.json" &
watcher=$!

# wait_until WHAT: WaitRun answers within 50 seconds; a script calls it until it is there.
wait_until() {
  while :; do
    printf '{"runId": "%s", "until": "%s", "timeout": "30s"}' "$run" "$1" |
      call RunService/WaitRun >"$work/waited"
    if ! grep -qE '"(timedOut|timed_out)": *true' "$work/waited"; then break; fi
  done
  field state <"$work/waited"
}
wait_until WAIT_UNTIL_ATTENTION

echo "== What it asks"
printf '{"runId": "%s", "states": ["APPROVAL_STATE_PENDING"]}' "$run" |
  call RunService/ListApprovals >"$work/approvals"
approval=$(field id <"$work/approvals")
printf '{"approvalId": "%s"}' "$approval" | call RunService/GetApproval >"$work/approval"
digest=$(field "bodySha256|body_sha256" <"$work/approval")
field title <"$work/approval"
echo "$approval, sha256 $digest"

echo "== Approve exactly that"
call RunService/DecideApproval >"$work/decided" <<JSON
{"approvalId": "$approval", "decision": "APPROVAL_DECISION_APPROVE", "bodySha256": "$digest",
 "comment": "looked at it", "requestId": "decide-$name"}
JSON
field state <"$work/decided"

echo "== Wait for the end"
state=$(wait_until WAIT_UNTIL_FINISHED)
echo "$state"
wait "$watcher" # the stream ends by itself after the last event
grep -q STREAM_END_REASON_FINISHED "$folder/watch.json"
[ "$state" = RUN_STATE_SUCCEEDED ]

echo "== Fetch the files into $folder"
printf '{"runId": "%s"}' "$run" | call RunService/ListArtifacts >"$work/artifacts"
awk -F'"' '/"id": *"art_/ {id = $4} /"name":/ {print id, $4}' "$work/artifacts" |
  while read -r artifact file; do
    printf '{"artifactId": "%s"}' "$artifact" | call RunService/GetArtifact >"$work/content"
    sed -n 's/.*"content": *"\([^"]*\)".*/\1/p' "$work/content" |
      while read -r chunk; do printf '%s' "$chunk" | base64 -d; done >"$folder/$file"
    [ "$(sha256 <"$folder/$file")" = "$(field sha256 <"$work/content")" ]
    echo "$folder/$file  $(wc -c <"$folder/$file") bytes, sha256 as stated"
  done
