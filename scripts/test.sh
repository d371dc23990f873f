#!/usr/bin/env bash
# The one test command: unit, property, simulation and conformance tests, then
# integration against a real Kafka, Redis and S3 service, then end to end. Starts
# what it needs and stops what it started, whatever happens. The last line
# counts the tests.
#
#   scripts/test.sh [STAGE]    STAGE: unit, integration or e2e; default all. llm is
#                              end to end on a real engine, and no part of all
#
# With CI=true a skipped test is a failure.
set -uo pipefail # not -e: every stage runs, so that one failure does not hide another

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
readonly only=${1:-all} state=$PWD/build/test
mkdir -p "$state"
rm -f "$state"/*

started=() # servers to stop; one that was up before stays up
stop() {
  local name
  for name in "${started[@]}"; do "scripts/$name.sh" down; done
}
trap stop EXIT
trap 'exit 130' INT TERM

sum() { "$state/testsum" -counts "$state/counts" "$@"; }

# stage NAME GO-TEST-ARGUMENTS... : run, print what matters, keep all of it.
stage() {
  local name=$1 since=$SECONDS
  shift
  echo "=== $name"
  go test -json -p 2 "$@" 2>&1 | tee "$state/$name.json" | sum
  echo "=== $name: $((SECONDS - since)) s"
}

# tagged TAG prints the packages that have tests of a build tag.
tagged() {
  grep -rl --include='*_test.go' --exclude-dir=build "^//go:build .*\b$1\b" . | xargs -r -n1 dirname | sort -u
}

# server NAME VARIABLE : start a real server and export its address. Without
# one its tests skip themselves, and are counted.
server() {
  local address
  if [[ ${CI:-} == true ]]; then "scripts/$1.sh" down; fi # what a killed run left has its data
  if address=$("scripts/$1.sh" status 2>/dev/null); then
    export "$2=$address"
  elif address=$("scripts/$1.sh" up); then
    started+=("$1")
    export "$2=$address"
  else
    echo "!!! no real $1 here: its tests are SKIPPED" >&2
  fi
}

(cd cmd && go build -o "$state/testsum" ./internal/testsum) || exit 1
wanted() { [[ $only == all || $only == "$1" ]]; }

if wanted unit; then
  # One processor for each package: in a synctest bubble two timers that fire on
  # two threads share one context of the race detector, which then crashes
  # (golang/go#78156). The detector needs no parallelism to see a race.
  stage unit -race -cpu 1 -timeout 10m work
  stage sim -timeout 10m ./cmd/sim # without the detector: more seeds, on all processors
  stage arch -count=1 -timeout 5m ./internal/arch # go list's answers are not in the cache's key
fi
if ! wanted unit || [[ $only == all ]]; then
  server kafka PENSTOCK_TEST_KAFKA
  server redis PENSTOCK_TEST_REDIS
  server s3 PENSTOCK_TEST_S3
fi
mapfile -t integration < <(tagged integration)
# One package at a time: they share the servers, and some empty them.
if wanted integration && ((${#integration[@]})); then
  stage integration -p 1 -race -count=1 -timeout 10m -tags integration "${integration[@]}"
fi
mapfile -t e2e < <(tagged e2e)
if wanted e2e && ((${#e2e[@]})); then
  stage e2e -count=1 -timeout 15m -tags e2e "${e2e[@]}"
fi
if [[ $only == llm ]]; then
  server llm PENSTOCK_TEST_LLM
  stage llm -v -count=1 -timeout 15m -tags e2e,llm -run RealEngine ./cmd/e2e
  grep -o 'slot free [^"\\]*' "$state/llm.json"
fi

if [[ ${CI:-} == true ]]; then sum -total -no-skips; else sum -total; fi
