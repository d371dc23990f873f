#!/usr/bin/env bash
# The demo on a real model (scripts/llm.sh), with a real Kafka, a real Redis and
# the three real services. Prints tokens/s and percentiles.
#
#   make demo-llm        or: scripts/demo-llm.sh [flags of `penstock demo-llm`]
set -euo pipefail

readonly slots=4
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root

started=()
stop() {
  local name
  for name in "${started[@]}"; do "$root/scripts/$name.sh" down; done
}
trap stop EXIT
trap 'exit 130' INT TERM

# up NAME : start a server unless it runs, and print its address.
up() {
  "$root/scripts/$1.sh" status 2>/dev/null || "$root/scripts/$1.sh" up
}

main() {
  local name kafka redis url
  for name in kafka redis llm; do
    "$root/scripts/$name.sh" status >/dev/null 2>&1 || started+=("$name")
  done
  kafka=$(up kafka)
  redis=$(up redis)
  url=$(up llm)
  "$root/bin/penstock" demo-llm --kafka "$kafka" --redis "$redis" --engine "$url" --slots "$slots" "$@"
}

main "$@"
