#!/usr/bin/env bash
# Runs every fuzz target of the workspace for a while, one after another.
#
#   scripts/fuzz.sh [TIME]   per target, default 30s
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly length=${1:-30s}
grep -rHo --include='*_test.go' --exclude-dir=build '^func Fuzz[A-Za-z0-9_]*' . | sort | while IFS=: read -r file function; do
  target=${function#func }
  echo "=== $target in ${file%/*}"
  go test -run '^$' -fuzz "^$target\$" -fuzztime "$length" "${file%/*}" </dev/null
done
