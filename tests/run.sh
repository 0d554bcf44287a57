#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Runs one test in a world of its own: a namespace and a folder of control
# sockets that no other test has, so that tests may run side by side. When the
# test has passed, looks that its brokers have left, that nothing of it still
# runs and that /dev/shm holds nothing of its namespaces: a test that leaves
# something behind has failed.
#
#   run.sh PROGRAM ARGUMENT...
#
# A test may use further namespaces if their names begin with "$XI_NAMESPACE.".
# XI_TEST_RUN (a number) tells the tests of one ./test from those of another.
# XI_TEST_PREFIX (valgrind, setarch, ...) is put before the program.
set -u

uid=$(id -u)
namespace="t${XI_TEST_RUN:-0}-$$"
runtime=$(mktemp -d /tmp/xi.XXXXXXXX) || exit 1
: "${XI_BUILD:?set by ctest}"
export PATH="$XI_BUILD/bin:$PATH" LC_ALL=C.UTF-8

# Processes that were started inside this world and still run. (Nothing that this script itself starts is: the
# variables are set for the test alone.)
ours() {
    grep -lzx "XI_RUNTIME_DIR=$runtime" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3
}

leftovers() {
    find /dev/shm -maxdepth 1 -name "xi.$uid.$namespace.*" -printf '%f\n' 2>/dev/null
}

clean_up() {
    local pids
    pids=$(ours)
    # shellcheck disable=SC2086 # one word a process
    [ -z "$pids" ] || kill -KILL $pids 2>/dev/null
    leftovers | sed 's|^|/dev/shm/|' | xargs -r rm -f --
    rm -rf -- "$runtime"
}
trap clean_up EXIT
trap 'exit 143' TERM INT HUP

# XI_LINGER: a broker that the library started stays for a while for the sake of undelivered values; one second will do.
# shellcheck disable=SC2086 # the prefix is several words
env XI_LINGER=1 XI_NAMESPACE="$namespace" XI_RUNTIME_DIR="$runtime" XI_BROKER="${XI_BROKER:-$XI_BUILD/bin/xi-broker}" \
    ${XI_TEST_PREFIX:-} "$@" </dev/null
status=$?
[ $status -eq 0 ] || exit $status

# A broker holds its lock for as long as it lives, so waiting for the lock is waiting for its end.
for lock in "$runtime"/*.lock; do
    [ -e "$lock" ] || continue
    if ! flock -w 10 "$lock" true; then
        echo "run.sh: the broker of $(basename "$lock" .lock) is still there 10 s after the test" >&2
        exit 1
    fi
done
stray=$(ours)
if [ -n "$stray" ]; then
    # One that is in its last instructions (a broker that has let go of its lock) may finish them.
    for pid in $stray; do timeout 5 tail --pid="$pid" -f /dev/null; done
    stray=$(ours)
fi
if [ -n "$stray" ]; then
    echo "run.sh: the test left processes behind:" >&2
    # shellcheck disable=SC2086 # one word a process
    ps -o pid,stat,args -p $stray >&2
    exit 1
fi
if [ -n "$(leftovers)" ]; then
    echo "run.sh: the test left shared memory behind:" >&2
    leftovers >&2
    exit 1
fi
