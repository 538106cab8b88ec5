#!/usr/bin/env bash
# Installs the servers that the tests run on, on Debian: Redis, PostgreSQL and
# MariaDB by apt, with libfaketime to move a server's clock, and Apache Kafka's
# jars by Maven into a folder of the user's cache. What is there already is left
# alone, so running it again is quick.
set -euo pipefail
cd "$(dirname "$0")"

kafka_version=4.3.1
jars=${FIRSTCOME_SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/firstcome/kafka-$kafka_version}

have() { command -v "$1" >/dev/null || compgen -G "$2" >/dev/null; }

packages=()
have redis-server '/usr/bin/redis-server' || packages+=(redis-server)
have libfaketimeMT.so.1 '/usr/lib/*/faketime/libfaketimeMT.so.1' || packages+=(libfaketime)
have postgres '/usr/lib/postgresql/*/bin/postgres' || packages+=(postgresql)
have mariadbd '/usr/sbin/mariadbd' || packages+=(mariadb-server)
have java '/usr/lib/jvm/*/bin/java' || packages+=(default-jre-headless)
if [ ! -f "$jars/kafka_2.13-$kafka_version.jar" ] || ! compgen -G "$jars/log4j-slf4j-impl-*.jar" >/dev/null; then
  fetch_kafka=yes
  have mvn '/usr/bin/mvn' || packages+=(maven)
else
  fetch_kafka=
fi

if [ ${#packages[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || {
    echo "Install these by your system's own means: ${packages[*]}" >&2
    exit 1
  }
  as_root=
  [ "$(id -u)" = 0 ] || as_root=sudo
  # Debian starts a service as soon as it is installed; the tests start their
  # own, so tell it not to, unless the machine has a policy already.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
    $as_root chmod +x $policy
    trap '$as_root rm -f $policy' EXIT
  fi
  echo "installing ${packages[*]}"
  $as_root apt-get update -qq
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null
fi

if [ -n "$fetch_kafka" ]; then
  echo "fetching Apache Kafka $kafka_version"
  mkdir -p "$jars"
  rm -f "$jars"/classes.jsa
  # Maven leaves its target folder beside the pom, so work on a copy.
  work=$(mktemp -d)
  cp kafka-pom.xml "$work/pom.xml"
  (cd "$work" && mvn -q -B -Dstyle.color=never dependency:copy-dependencies "-DoutputDirectory=$jars")
  rm -rf "$work"
fi

if [ ! -f "$jars/classes.jsa" ]; then
  echo "preparing Apache Kafka for quick starts"
  go run ./cmd/servers -prepare || echo "not prepared: Kafka will start more slowly" >&2
fi

echo "servers: $(redis-server --version | cut -d' ' -f3), $(ls /usr/lib/postgresql 2>/dev/null | sed 's/^/postgresql /' | tail -1), kafka $kafka_version in $jars"
