#!/usr/bin/env bash
# Runs the tests of the Kafka source against a real broker: tansu, from the crate registry, with its
# records in memory. Installs it into target/tansu the first time (a quarter of an hour on two
# cores), starts it on a free loopback port, and stops it by its own process id.
#
#   tests/kafka/tansu.sh [arguments of `cargo test`, such as a name]
#
# Tests that have to break the brokers are left out by themselves: they need the mock cluster. So are
# those of the claims beside commits, since this broker keeps no texts there.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=0.6.0
root="$PWD/target/tansu"
broker=$(command -v tansu || echo "$root/bin/tansu")

if [ ! -x "$broker" ]; then
    # Without `dynostore` it has no storage at all; the debug profile builds faster.
    cargo install tansu --version "$version" --locked --features dynostore --debug --root "$root"
fi

mkdir -p "$root"
port=${TANSU_PORT:-$((20000 + RANDOM % 20000))}
log="$root/broker.log"
STORAGE_ENGINE="memory://tansu/" \
    LISTENER_URL="tcp://127.0.0.1:$port" \
    ADVERTISED_LISTENER_URL="tcp://127.0.0.1:$port" \
    "$broker" broker >"$log" 2>&1 &
pid=$!
trap 'kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true' EXIT

for _ in $(seq 100); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        ready=yes
        break
    fi
    if ! kill -0 "$pid" 2>/dev/null; then
        break
    fi
    sleep 0.1
done
if [ "${ready:-no}" != yes ]; then
    echo "the broker did not start:" >&2
    tail -20 "$log" >&2
    exit 1
fi

# This version answers a fetch from within a batch with what follows the batch: one record each.
USERCOM_TEST_KAFKA="127.0.0.1:$port" USERCOM_TEST_KAFKA_BATCH=1 \
    cargo test --features kafka --test it "${@:-kafka::}" -- --test-threads 2
