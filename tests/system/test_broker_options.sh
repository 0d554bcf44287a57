#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# The broker's command line and surroundings: what it says of itself, what it
# refuses in words and with which status, its log, its quotas, and how it ends.
set -u
broker=$XI_BROKER
bad=0
work=$(mktemp -d) || exit 1
trap 'rm -rf -- "$work"' EXIT

check() { # WHAT STATUS: 0 is right
    [ "$2" -eq 0 ] && return
    echo "wrong: $1"
    bad=$((bad + 1))
}

# refused STATUS WORDS ARGUMENT...: ends at once, with this status and these words
refused() {
    local status=$1 words=$2 said got
    shift 2
    said=$(timeout 10 "$broker" "$@" 2>&1)
    got=$?
    [ $got -eq "$status" ] && [[ "$said" == *"$words"* ]]
    check "xi-broker $*: status $got, said: $said" $?
}

refused 0 "usage:" --help
refused 0 "xi-broker " --version
refused 2 "unexpected argument" one
refused 2 "" --no-such-option
refused 2 "a namespace is" -n 'a b'
refused 2 "a namespace is" -n .hidden
refused 2 "not an open descriptor" --ready-fd 999
refused 2 "not a descriptor" --ready-fd x
refused 2 "not a number of bytes" --quota-bytes 12Q
refused 2 "not a number of bytes" --quota-bytes -1
refused 2 "not a number of bytes" --quota-bytes 99999999999999999999
refused 2 "not a number of bytes" --quota-bytes 99999999999T
refused 2 "not a number of bytes" --quota-bytes 1KK
refused 2 "not a number of segments" --quota-segments 5000000000
refused 2 "not a number of channels" --quota-channels 16385
refused 2 "not a number of interpreters" --quota-interps 512
refused 2 "--open-to" --open-to 'no such user:really'
refused 1 "cannot open the log" --log "$work/none/log"
XI_WAIT=kqueue refused 2 "XI_WAIT is auto, uring or futex" -n "$XI_NAMESPACE"
XI_LINGER=soon refused 2 "XI_LINGER is a number" -n "$XI_NAMESPACE"
XI_LINGER=-1 refused 2 "XI_LINGER is a number" -n "$XI_NAMESPACE"

# start NAME ARGUMENT...: a broker of "$XI_NAMESPACE.NAME" that is ready; its process is $!
start() {
    local name=$1 said
    shift
    mkfifo "$work/$name"
    "$broker" -n "$XI_NAMESPACE.$name" --ready-fd 9 --log "$work/$name.log" "$@" 9>"$work/$name" &
    read -r said <"$work/$name"
    [ "$said" = ready ]
    check "a broker with $* said $said" $?
}
# ended NAME PID STATUS: and nothing of it is left
ended() {
    wait "$2"
    local got=$?
    [ $got -eq "$3" ]
    check "the broker $1 ended with $got, not $3" $?
    [ -z "$(find /dev/shm -maxdepth 1 -name "xi.$(id -u).$XI_NAMESPACE.$1.*")" ]
    check "the broker $1 left segments" $?
}

start quotas --quota-bytes 64M --quota-segments 100 --quota-channels 2 --quota-interps 3 --verbose
quotas=$!
export XI_NAMESPACE
for name in a b c; do XI_NAMESPACE=$XI_NAMESPACE.quotas xi send "$name" 1 >"$work/said" 2>&1; done
grep -q -- '--quota-channels' "$work/said"
check "a third channel of two: $(cat "$work/said")" $?
refused 1 "" -n "$XI_NAMESPACE.quotas" # one is there already
kill -TERM $quotas
ended quotas $quotas 0
grep -q 'ended by SIGTERM' "$work/quotas.log"
check "its log says how it ended: $(cat "$work/quotas.log")" $?
[ "$(stat -c %a "$work/quotas.log")" = 600 ]
check "nobody else reads its log" $?

for signal in INT HUP; do
    start $signal --memfd
    pid=$!
    kill -$signal $pid
    ended $signal $pid 0
done

[ $bad -eq 0 ] && echo "all as it should be"
exit $((bad != 0))
