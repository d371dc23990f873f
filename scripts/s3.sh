#!/usr/bin/env bash
# A real S3 service for tests, without Docker: Versity's gateway over a
# directory, built from the Go module proxy (about two minutes, once). On a free
# loopback port, with one bucket and keys that everybody knows.
#
#   scripts/s3.sh up       start, wait until ready, print the URL
#   scripts/s3.sh status   print the URL; exit 1 if it is down
#   scripts/s3.sh down     stop and delete what was stored
#
# Exit 69 (EX_UNAVAILABLE): no server can be had here.
set -euo pipefail

readonly unavailable=69 version=v1.8.0 bucket=penstock-test
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root home=$root/build/s3
readonly run=$home/run server=$home/$version/versitygw what=s3
# shellcheck source=scripts/server.sh
source "$root/scripts/server.sh"

main() {
  case ${1:-} in
    up) up ;;
    down) down ;;
    status) status ;;
    *)
      echo "usage: ${0##*/} up | down | status" >&2
      exit 2
      ;;
  esac
}

up() {
  if status 2>/dev/null; then return; fi
  down
  build
  local port
  mkdir -p "$run/data/$bucket" "$run/meta"
  port=$(free_port)
  ROOT_ACCESS_KEY_ID=penstock-test ROOT_SECRET_ACCESS_KEY=penstock-test-secret \
    setsid "$server" --port "127.0.0.1:$port" --quiet posix --sidecar "$run/meta" "$run/data" >"$run/log" 2>&1 </dev/null &
  echo $! >"$run/pid"
  await "$port"
  echo "s3://$bucket?endpoint=http://127.0.0.1:$port&region=us-east-1&path_style=true" >"$run/url"
  cat "$run/url"
}

# build leaves the server where the next run finds it.
build() {
  [[ -x $server ]] && return
  mkdir -p "$home"
  GOWORK=off GOFLAGS='' GOBIN=$(dirname "$server") go install "github.com/versity/versitygw/cmd/versitygw@$version" \
    >"$home/build.log" 2>&1 && return
  tail -n 5 "$home/build.log" >&2
  echo "the S3 gateway cannot be built here" >&2
  exit $unavailable
}

# await asks for a child by its pid alone: until it has exec'd its server, alive
# does not know it.
await() {
  local port=$1 waited=0
  until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    if ! kill -0 "$(<"$run/pid")" 2>/dev/null || ((waited++ >= 100)); then
      echo "the S3 gateway died, or did not open its port within ten seconds" >&2
      tail -n 20 "$run/log" >&2
      down
      exit 1
    fi
    sleep 0.1
  done
}

# alive holds only for a server of ours: a stale pid file may name anybody.
alive() {
  [[ $(readlink "/proc/$1/exe" 2>/dev/null) == "$server" ]] || { [[ ! -d /proc/self ]] && kill -0 "$1" 2>/dev/null; }
}

main "$@"
