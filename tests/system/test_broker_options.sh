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

check() { # STATUS WHAT: 0 is right. (In this order: what a $(command) in WHAT ends with comes after.)
    [ "$1" -eq 0 ] && return
    echo "wrong: $2"
    bad=$((bad + 1))
}

# refused STATUS WORDS ARGUMENT...: ends at once, with this status and these words
refused() {
    local status=$1 words=$2 said got
    shift 2
    said=$(timeout 10 "$broker" "$@" 2>&1)
    got=$?
    [ $got -eq "$status" ] && [[ "$said" == *"$words"* ]]
    check $? "xi-broker $*: status $got, said: $said"
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
    check $? "a broker with $* said $said"
}
# ended NAME PID STATUS: and nothing of it is left
ended() {
    wait "$2"
    local got=$?
    [ $got -eq "$3" ]
    check $? "the broker $1 ended with $got, not $3"
    [ -z "$(find /dev/shm -maxdepth 1 -name "xi.$(id -u).$XI_NAMESPACE.$1.*")" ]
    check $? "the broker $1 left segments"
}

start quotas --quota-bytes 64M --quota-segments 100 --quota-channels 2 --quota-interps 3 --verbose
quotas=$!
export XI_NAMESPACE
for name in a b c; do XI_NAMESPACE=$XI_NAMESPACE.quotas xi send "$name" 1 >"$work/said" 2>&1; done
grep -q -- '--quota-channels' "$work/said"
check $? "a third channel of two: $(cat "$work/said")"
refused 1 "" -n "$XI_NAMESPACE.quotas" # one is there already
mkdir -m 700 "$work/another-folder" # whose lock says nothing of that
XI_RUNTIME_DIR=$work/another-folder refused 1 "process $quotas serves namespace" -n "$XI_NAMESPACE.quotas"
XI_NAMESPACE=$XI_NAMESPACE.quotas xi recv a --count 1 >"$work/said" 2>&1 && grep -qx 1 "$work/said"
check $? "the one that is there goes on: $(cat "$work/said")"
kill -TERM $quotas
ended quotas $quotas 0
grep -q 'ended by SIGTERM' "$work/quotas.log"
check $? "its log says how it ended: $(cat "$work/quotas.log")"
[ "$(stat -c %a "$work/quotas.log")" = 600 ]
check $? "nobody else reads its log"

for signal in INT HUP; do
    start $signal --memfd
    pid=$!
    kill -$signal $pid
    ended $signal $pid 0
done

# ---- where its sockets lie

long=$(printf 'x%.0s' $(seq 100))
mkdir -m 755 "$work/seen"
mkdir -m 700 "$work/mine" "$work/other" "$work/mine/taken.sock"
: >"$work/file"
ln -s nowhere "$work/mine/led.lock"
XI_RUNTIME_DIR=/dev/null/x refused 1 "cannot make the folder" -n one
XI_RUNTIME_DIR=$work/file refused 1 "is not a folder" -n one
XI_RUNTIME_DIR=$work/seen refused 1 "chmod 700" -n one
XI_RUNTIME_DIR=/tmp/$long/$long refused 1 "XI_RUNTIME_DIR" -n one
XI_RUNTIME_DIR=$work/mine refused 1 "cannot open the lock file" -n led
XI_RUNTIME_DIR=$work/mine refused 1 "cannot listen on" -n taken
if [ "$(id -u)" = 0 ]; then
    mkdir -m 700 "$work/theirs"
    chown 61002 "$work/theirs"
    XI_RUNTIME_DIR=$work/theirs refused 1 "belongs to user 61002" -n one
    XI_OPEN_DIR=$work/theirs refused 1 "is no place for a folder" -n one --open-to '*'
else
    XI_RUNTIME_DIR=/ refused 1 "belongs to user 0" -n one
fi

export XI_OPEN_DIR=$work/open
folder=$XI_OPEN_DIR/xidata-open-$(id -u)
refused 1 "cannot look at" -n one --open-to '*'
mkdir -m 777 "$XI_OPEN_DIR"
chmod 777 "$XI_OPEN_DIR"
refused 1 "sticky bit" -n one --open-to '*'
chmod 1777 "$XI_OPEN_DIR"
: >"$folder"
refused 1 "is not a folder: remove it" -n one --open-to '*'
rm "$folder"
mkdir "$folder"
chmod 733 "$folder"
refused 1 "chmod 711" -n one --open-to '*'
if [ "$(id -u)" = 0 ]; then
    chown 61002 "$folder"
    refused 1 "is another user's" -n one --open-to '*'
    chown 0 "$folder"
fi
XI_OPEN_DIR=/proc refused 1 "through which other users are to come" -n one --open-to '*'
XI_OPEN_DIR=/tmp/$long refused 1 "XI_OPEN_DIR" -n one --open-to '*'
chmod 700 "$folder" # which a broker opens as far as need be
start opened --open-to '*'
opened=$!
[ "$(stat -c %a "$folder")" = 711 ]
check $? "the folder of open namespaces can be passed: $(stat -c %a "$folder")"
XI_RUNTIME_DIR=$work/other refused 1 "another broker of yours, with another runtime folder" -n "$XI_NAMESPACE.opened" --open-to '*'
kill "$opened"
ended opened "$opened" 0
[ -z "$(ls "$folder")" ]
check $? "its socket there is gone: $(ls "$folder")"

# ---- a service manager that is none, or somebody else's

logged() { # NAME WORDS
    grep -qF -- "$2" "$work/$1.log"
    check $? "the log of $1 says \"$2\": $(cat "$work/$1.log")"
}
unlogged() { # NAME WORDS
    ! grep -qF -- "$2" "$work/$1.log"
    check $? "the log of $1 does not say \"$2\": $(cat "$work/$1.log")"
}
stopped() { # NAME
    kill "$!"
    ended "$1" "$!" 0
}
for path in relative / @ "/tmp/$long$long"; do
    NOTIFY_SOCKET=$path refused 1 "NOTIFY_SOCKET is no socket that can be written to" -n "$XI_NAMESPACE" --log "$work/none/log"
done
NOTIFY_SOCKET=$work/nobody start unheard --memfd
stopped unheard
logged unheard "the service manager keeps no descriptors"
logged unheard 'cannot tell the service manager "READY=1"'
NOTIFY_SOCKET=$work/nobody SYSTEMD_EXEC_PID=1 start elsewhere --memfd # it manages who started us
stopped elsewhere
unlogged elsewhere "service manager"
NOTIFY_SOCKET='' LISTEN_PID=1 LISTEN_FDS=2 start others --memfd
stopped others
unlogged others "LISTEN_FDS"

# handed NAME COUNT NAMES ARGUMENT...: a broker whose manager hands in descriptors, of which 3 and 4 are there
program=$broker
handed() {
    local name=$1
    export TEST_FDS=$2 TEST_NAMES=$3 TEST_BROKER=$program
    shift 3
    # shellcheck disable=SC2016 # expanded by the shell that runs it
    printf '%s\n' '#!/bin/sh' 'export LISTEN_PID=$$ LISTEN_FDS="$TEST_FDS" LISTEN_FDNAMES="$TEST_NAMES"' \
        'exec "$TEST_BROKER" "$@" 3</dev/null 4</dev/null' >"$work/handed"
    chmod 700 "$work/handed"
    broker=$work/handed
    start "$name" "$@"
    broker=$program
    stopped "$name"
}
ns=$XI_NAMESPACE.rubbish
handed rubbish 7 "rubbish:xi-$ns-00000002"
logged rubbish "LISTEN_FDS promises"
logged rubbish 'descriptor "rubbish" that the service manager hands in is refused: its name is none'
logged rubbish "descriptor \"xi-$ns-00000002\" that the service manager hands in is refused: it is not a memfd"
ns=$XI_NAMESPACE.things
handed things 2 "xi-$ns-lock:xi-$ns-socket"
logged things "the lock that the service manager hands in is refused"
logged things "the socket that the service manager hands in is refused"
ns=$XI_NAMESPACE.twice
handed twice 2 "xi-$ns-open:xi-$ns-open"
logged twice "there are two of it"
logged twice "the open that the service manager hands in is refused: this broker is not open to other users"
for count in -1 99999999 none; do
    handed "count$count" "$count" "a:b"
    unlogged "count$count" "service manager"
done
handed unnamed 1 "xi-$XI_NAMESPACE.unnamed:xi-$XI_NAMESPACE.unnamed-g"
logged unnamed "its name is none"

[ $bad -eq 0 ] && echo "all as it should be"
exit $((bad != 0))
