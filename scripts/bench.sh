#!/usr/bin/env bash
# Load against the three real services on a real Kafka and Redis, compared in
# the same run with a bare handler and with an oracle. About ten minutes.
#
#   make bench        or: scripts/bench.sh [flags of `penstock bench all`]
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root

started=()
stop() {
  local name
  for name in "${started[@]}"; do "$root/scripts/$name.sh" down; done
}
trap stop EXIT
trap 'exit 130' INT TERM

# own NAME : start a server that nobody else uses, and print its address.
own() {
  if "$root/scripts/$1.sh" status >/dev/null 2>&1; then
    echo "$1 is up already and the benchmark wants one of its own: scripts/$1.sh down" >&2
    exit 1
  fi
  "$root/scripts/$1.sh" up
}

kafka=$(own kafka)
started+=(kafka)
redis=$(own redis)
started+=(redis)
"$root/bin/penstock" bench all --kafka "$kafka" --redis "$redis" \
  --pid "kafka=$(<"$root/build/kafka/run/0.pid")" --pid "redis=$(<"$root/build/redis/run/pid")" "$@"
