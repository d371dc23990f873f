#!/usr/bin/env bash
# A real Apache Kafka for tests, without Docker: KRaft brokers from the jars on
# Maven Central, on free loopback ports, with all state under build/kafka.
#
#   scripts/kafka.sh up [--brokers N]   start, wait until ready, print the bootstrap address
#   scripts/kafka.sh status             print the address; exit 1 if it is down
#   scripts/kafka.sh down               stop and delete the data; the jars stay
#
# For those who run the brokers themselves, to kill and freeze them:
#
#   scripts/kafka.sh prepare --dir DIR  write settings and data directories, print "ID LISTENER HOST:PORT" lines
#   scripts/kafka.sh run ID --dir DIR   become that broker
#
#   --dir DIR                  state of a cluster, so that several can live side by side
#   --set KEY=VALUE            a broker setting, any number of times
#   --via NAME=HOST:PORT,...   one more listener, advertised at these addresses, one for each broker
#
# Exit 69 (EX_UNAVAILABLE): Java or the jars cannot be had here.
set -euo pipefail

readonly version=4.3.1 unavailable=69
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root home=$root/build/kafka
readonly libs=$home/libs
run=$home/run
settings=() vias=()
readonly jvm=(-Xms128m -Xmx384m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Djava.awt.headless=true
  -Dorg.slf4j.simpleLogger.defaultLogLevel=warn)

main() {
  local verb=${1:-} brokers=1 id=''
  shift || true
  while (($# > 0)); do
    case $1 in
      --brokers) brokers=${2:?--brokers needs a number}; shift 2 ;;
      --dir) run=${2:?--dir needs a directory}; shift 2 ;;
      --set) settings+=("${2:?--set needs KEY=VALUE}"); shift 2 ;;
      --via) vias+=("${2:?--via needs NAME=HOST:PORT,...}"); shift 2 ;;
      [0-9]) id=$1; shift ;;
      *) usage ;;
    esac
  done
  case $verb in
    up) up "$brokers" ;;
    down) down ;;
    status) status ;;
    prepare) prepare "$brokers" >/dev/null && cat "$run/listeners" ;;
    run) exec java "${jvm[@]}" "-Djava.io.tmpdir=$run" -cp "$libs/*" kafka.Kafka "$run/${id:?run needs the ID of a broker}.properties" ;;
    *) usage ;;
  esac
}

usage() {
  echo "usage: ${0##*/} up [--brokers N] | down | status | prepare | run ID   [--dir DIR] [--set KEY=VALUE] [--via NAME=HOST:PORT,...]" >&2
  exit 2
}

up() {
  local brokers=$1 i
  if status 2>/dev/null; then return; fi
  down
  prepare "$brokers"
  for ((i = 0; i < brokers; i++)); do start "$i"; done
  for ((i = 0; i < brokers; i++)); do await "$i"; done
  awk '$2 == "PLAINTEXT" {print $3}' "$run/listeners" | paste -sd, >"$run/bootstrap"
  cat "$run/bootstrap"
}

# prepare BROKERS: settings and formatted data directories for a new cluster.
prepare() {
  local brokers=$1 ports cluster i
  fetch_jars
  mkdir -p "$run"
  : >"$run/listeners"
  mapfile -t ports < <(free_ports $(((2 + ${#vias[@]}) * brokers)))
  cluster=$(java_run kafka.tools.StorageTool random-uuid)
  for ((i = 0; i < brokers; i++)); do
    write_properties "$i" "$brokers" "${ports[@]}"
    java_run kafka.tools.StorageTool format -t "$cluster" -c "$run/$i.properties" >"$run/$i.log" 2>&1 ||
      fail "cannot format the data directory" "$i"
  done
}

down() {
  local pidfile
  for pidfile in "$run"/*.pid; do
    [[ -e $pidfile ]] && stop "$(<"$pidfile")"
  done
  rm -rf "$run"
}

status() {
  local pidfile
  [[ -s $run/bootstrap ]] || { echo "kafka is down" >&2; return 1; }
  for pidfile in "$run"/*.pid; do
    alive "$(<"$pidfile")" || { echo "kafka is down: ${pidfile##*/} is dead" >&2; return 1; }
  done
  cat "$run/bootstrap"
}

# fetch_jars copies the broker and all that it needs to build/kafka/libs, once.
fetch_jars() {
  [[ -e $libs/.complete-$version ]] && return
  command -v java >/dev/null || { echo "java 17 or newer is needed for Kafka" >&2; exit $unavailable; }
  command -v mvn >/dev/null || { echo "mvn is needed to fetch Kafka's jars" >&2; exit $unavailable; }
  rm -rf "$libs"
  mkdir -p "$home"
  write_pom
  mvn --batch-mode --quiet --file "$home/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$libs" >"$home/mvn.log" 2>&1 || {
    tail -n 20 "$home/mvn.log" >&2
    echo "Kafka's jars cannot be fetched" >&2
    exit $unavailable
  }
  touch "$libs/.complete-$version"
}

write_pom() {
  cat >"$home/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>penstock</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
}

# write_properties ID BROKERS PORT... : a broker that is its own controller.
# Ports come in groups of BROKERS: clients, controllers, then each --via.
write_properties() {
  local id=$1 brokers=$2 replicas voters=() i
  shift 2
  local ports=("$@")
  replicas=$((brokers < 3 ? brokers : 3))
  for ((i = 0; i < brokers; i++)); do voters+=("$i@127.0.0.1:${ports[brokers + i]}"); done
  local direct=PLAINTEXT://127.0.0.1:${ports[id]} map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
  local listeners=$direct,CONTROLLER://127.0.0.1:${ports[brokers + id]} advertised=$direct
  echo "$id PLAINTEXT 127.0.0.1:${ports[id]}" >>"$run/listeners"
  for ((i = 0; i < ${#vias[@]}; i++)); do
    local name=${vias[i]%%=*} address=127.0.0.1:${ports[(2 + i) * brokers + id]} shown
    IFS=, read -ra shown <<<"${vias[i]#*=}"
    listeners+=,$name://$address advertised+=,$name://${shown[id]} map+=,$name:PLAINTEXT
    echo "$id $name $address" >>"$run/listeners"
  done
  cat >"$run/$id.properties" <<PROPERTIES
process.roles=broker,controller
node.id=$id
controller.quorum.voters=$(IFS=,; echo "${voters[*]}")
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=$listeners
advertised.listeners=$advertised
listener.security.protocol.map=$map
log.dirs=$run/data-$id
auto.create.topics.enable=false
default.replication.factor=$replicas
min.insync.replicas=$((replicas > 2 ? 2 : 1))
offsets.topic.replication.factor=$replicas
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=$replicas
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=$replicas
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=8388608
PROPERTIES
  ((${#settings[@]} == 0)) || printf '%s\n' "${settings[@]}" >>"$run/$id.properties" # the last of a key counts
}

start() {
  local id=$1
  # Setsid: a Ctrl-C at the terminal must not kill the broker before the tests end.
  setsid java "${jvm[@]}" "-Djava.io.tmpdir=$run" -cp "$libs/*" kafka.Kafka "$run/$id.properties" \
    >>"$run/$id.log" 2>&1 </dev/null &
  echo $! >"$run/$id.pid"
}

# await waits until the broker has left its fence and serves its clients' port.
# It asks for a child by its pid alone: until it has exec'd java, alive does not
# know it.
await() {
  local id=$1 port waited=0
  port=$(awk -v id="$id" '$1 == id && $2 == "PLAINTEXT" {sub(/.*:/, "", $3); print $3}' "$run/listeners")
  until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    kill -0 "$(<"$run/$id.pid")" 2>/dev/null || fail "the broker died" "$id"
    ((waited++ < 600)) || fail "the broker did not open its port within a minute" "$id"
    sleep 0.1
  done
}

# stop asks, then kills after 10 s.
stop() {
  local pid=$1 waited=0
  kill "$pid" 2>/dev/null || return 0
  while alive "$pid"; do
    ((waited++ < 100)) || { kill -9 "$pid" 2>/dev/null || true; return 0; }
    sleep 0.1
  done
}

# alive holds only for a Kafka of ours: a stale pid file may name anybody.
alive() {
  tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" | grep -qF "$run/" ||
    { [[ ! -d /proc/self ]] && ps -o command= -p "$1" 2>/dev/null | grep -qF "$run/"; }
}

java_run() {
  java -Xmx128m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp "$libs/*" "$@"
}

# free_ports N prints N ports that nobody uses, below the ephemeral range, so
# that an outgoing connection does not take one before the broker binds it.
free_ports() {
  local want=$1 port tried=0 taken=" "
  while ((want > 0)); do
    ((tried++ < 1000)) || { echo "no free ports" >&2; return 1; }
    port=$((20000 + RANDOM % 10000))
    if [[ $taken != *" $port "* ]] && ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      taken+="$port "
      want=$((want - 1))
      echo "$port"
    fi
  done
}

fail() {
  echo "kafka: $1; its log ends with:" >&2
  tail -n 20 "$run/$2.log" >&2
  down
  exit 1
}

main "$@"
