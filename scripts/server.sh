# shellcheck shell=bash disable=SC2154 # who sources it assigns root, run and what
# What the scripts share that keep one server for tests. To be sourced by a
# script with root, the checkout; run, the server's folder, which holds its pid
# and url; and what, its name for people.

down() {
  local pid waited=0
  if [[ -e $run/pid ]]; then
    pid=$(<"$run/pid")
    if alive "$pid"; then
      kill "$pid" 2>/dev/null || true
      while alive "$pid" && ((waited++ < 50)); do sleep 0.1; done
      if alive "$pid"; then kill -9 "$pid" 2>/dev/null || true; fi
    fi
  fi
  cd "$root" || return
  rm -rf "$run"
}

status() {
  if [[ -s $run/url && -s $run/pid ]] && alive "$(<"$run/pid")"; then
    cat "$run/url"
    return
  fi
  echo "$what is down" >&2
  return 1
}

# alive holds only for a server of ours, which was started in its folder: a stale
# pid file may name anybody, and a server may rewrite its command line.
alive() {
  [[ $(readlink "/proc/$1/cwd" 2>/dev/null) == "$run" ]] || { [[ ! -d /proc/self ]] && kill -0 "$1" 2>/dev/null; }
}

free_port() {
  local port tried=0
  while ((tried++ < 1000)); do
    port=$((20000 + RANDOM % 10000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
  echo "no free port" >&2
  return 1
}
