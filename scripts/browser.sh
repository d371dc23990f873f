#!/usr/bin/env bash
# A Chromium for the tests of pages: the one in the PATH, or Debian's package
# when root may install it. Prints its path.
#
# Exit 69 (EX_UNAVAILABLE): none can be had here.
set -euo pipefail

readonly unavailable=69 names=(chromium chromium-browser google-chrome)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly home=$root/build/browser

find_browser() {
  local name
  for name in "${names[@]}"; do command -v "$name" && return; done
  return 1
}

install_package() {
  [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null || return 1
  mkdir -p "$home"
  {
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium
  } >"$home/apt.log" 2>&1
}

find_browser || { install_package && find_browser; } || {
  echo "no Chromium in the PATH, and none could be installed" >&2
  exit $unavailable
}
