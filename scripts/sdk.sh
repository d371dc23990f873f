#!/usr/bin/env bash
# The official OpenAI clients for the end-to-end tests, pinned, from the package
# registries: installed once into build/sdk.
#
#   scripts/sdk.sh python   install, print the interpreter that has openai
#   scripts/sdk.sh node     install, print the directory that has openai
#
# Exit 69 (EX_UNAVAILABLE): they cannot be had here.
set -euo pipefail

readonly unavailable=69
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root home=$root/build/sdk sources=$root/scripts/sdk

main() {
  case ${1:-} in
    python) python ;;
    node) node_modules ;;
    *)
      echo "usage: ${0##*/} python | node" >&2
      exit 2
      ;;
  esac
}

# current NAME FILE : what is installed is what the file asks for.
current() {
  [[ -e $home/$1/.complete ]] && cmp -s "$home/$1/.complete" "$2"
}

need() {
  command -v "$1" >/dev/null || { echo "$1 is not installed" >&2; exit $unavailable; }
}

python() {
  local wanted=$sources/requirements.txt
  if ! current python "$wanted"; then
    need python3
    rm -rf "$home/python"
    python3 -m venv "$home/python" >&2
    "$home/python/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted" >&2 || exit $unavailable
    cp "$wanted" "$home/python/.complete"
  fi
  echo "$home/python/bin/python"
}

node_modules() {
  local wanted=$sources/package.json
  if ! current node "$wanted"; then
    need npm
    rm -rf "$home/node"
    mkdir -p "$home/node"
    cp "$wanted" "$home/node/package.json"
    (cd "$home/node" && npm install --silent --no-audit --no-fund --no-package-lock >&2) || exit $unavailable
    cp "$wanted" "$home/node/.complete"
  fi
  echo "$home/node"
}

main "$@"
