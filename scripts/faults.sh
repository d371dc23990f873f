#!/usr/bin/env bash
# The long half of the test ladder: real processes under faults. Each test
# starts a Kafka and a Redis of its own. Ends with one table: fault, verdict,
# target, measured, seed; the same goes to build/faults/STAGE.md and .json.
#
#   scripts/faults.sh faults [go test flags]   one test for each fault, about 15 minutes
#   scripts/faults.sh chaos  [go test flags]   random faults from seeds, three brokers, up to an hour
#   scripts/faults.sh soak   [go test flags]   PENSTOCK_SOAK_HOURS of load with a fault now and then
#
# PENSTOCK_CHAOS_SEEDS and PENSTOCK_CHAOS_SEED choose the seeds of chaos.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
readonly stage=${1:?faults, chaos or soak} out=$PWD/build/faults
shift
declare -A limit=([faults]=40m [chaos]=120m [soak]=0)
[[ -n ${limit[$stage]:-} ]] || { echo "no such stage: $stage" >&2; exit 2; }

mkdir -p "$out"
rm -f "$out/$stage".*
export PENSTOCK_FAULTS_ROWS=$out/$stage.jsonl
# The jars and the server are fetched before the first test is timed.
scripts/kafka.sh up >/dev/null && scripts/kafka.sh down || exit $?
scripts/redis.sh up >/dev/null && scripts/redis.sh down || exit $?

mapfile -t packages < <(grep -rlE --include='*_test.go' --exclude-dir=build "^//go:build .*\b$stage\b" . | xargs -r -n1 dirname | sort -u)
go test -count=1 -p 1 -parallel 4 -timeout "${limit[$stage]}" -tags "$stage" "$@" "${packages[@]}" 2>&1 | tee "$out/$stage.log"
status=${PIPESTATUS[0]}
(cd cmd && go build -o "$out/faultreport" ./internal/faultreport) || exit 1
"$out/faultreport" -rows "$PENSTOCK_FAULTS_ROWS" -out "$out" -name "$stage" -title "make ${stage/#[fc]/test-&}" \
  -kafka "$(sed -n 's/^readonly version=\([^ ]*\).*/\1/p' scripts/kafka.sh)" \
  -redis "$(redis-server --version 2>/dev/null | sed -n 's/.*v=\([^ ]*\).*/\1/p')" || status=1
exit "$status"
