#!/usr/bin/env bash
# Formatting, vet, staticcheck, import rules, that every module builds and is tidy
# without the workspace, and that the gRPC code is that of its contract. Runs all of them, then says which failed.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
readonly gofumpt=mvdan.cc/gofumpt@v0.12.0 staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2
readonly tags=integration,e2e,llm,faults,chaos,soak
mapfile -t modules < <(go list -m -f '{{.Dir}}')
failed=()

check() {
  local name=$1
  shift
  echo "=== $name"
  "$@" || failed+=("$name")
}

formatted() {
  local unformatted
  unformatted=$(go run "$gofumpt" -l "${modules[@]}") || return 1
  [[ -z $unformatted ]] || { printf 'not formatted (make fmt):\n%s\n' "$unformatted"; return 1; }
}

# alone builds one module as the Dockerfile and strangers do.
alone() (
  cd "$1" && GOWORK=off go build ./... && GOWORK=off go mod tidy -diff
)

scripts_clean() {
  command -v shellcheck >/dev/null || { echo "shellcheck is not installed: scripts not checked"; return 0; }
  shellcheck scripts/*.sh .ci/run
}

check gofumpt formatted
check vet go vet -tags "$tags" work
check staticcheck go run "$staticcheck" -tags "$tags" "${modules[@]/%//...}"
check arch go test -count=1 ./internal/arch
check shellcheck scripts_clean
check "gRPC contract" scripts/proto.sh check
for module in "${modules[@]}"; do check "$(basename "$module") without the workspace" alone "$module"; done

if ((${#failed[@]})); then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
echo "all checks passed"
