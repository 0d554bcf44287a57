#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# A million values between two processes that are awake, the broker stopped
# meanwhile: fewer than a thousand system calls in each, from start to end.
set -u

count=1000000
limit=1000
stream="$XI_BUILD/tests/stream"
work=$(mktemp -d)
broker=""
clean_up() {
    [ -z "$broker" ] || kill -CONT "$broker" 2>/dev/null
    rm -rf "$work"
}
trap clean_up EXIT

if ! strace -qq -c -o /dev/null true 2>/dev/null; then
    echo "strace may not trace here; skipped"
    exit 77
fi
if [ "$(nproc)" -lt 2 ]; then
    echo "one CPU: two processes cannot both be awake; skipped"
    exit 77
fi

# Long enough that neither side sleeps because the host gave its CPU to somebody else for a while.
export XI_SPIN_US=2000000

mkfifo "$work/recv.in" "$work/recv.out" "$work/send.in" "$work/send.out"
strace -f -qq -c -o "$work/recv.calls" "$stream" recv numbers $count <"$work/recv.in" >"$work/recv.out" &
receiver=$!
exec {to_receiver}>"$work/recv.in" {from_receiver}<"$work/recv.out"
strace -f -qq -c -o "$work/send.calls" "$stream" send numbers $count <"$work/send.in" >"$work/send.out" &
sender=$!
exec {to_sender}>"$work/send.in" {from_sender}<"$work/send.out"

# The answer of one side, which must begin with the word expected.
answer() { # SIDE DESCRIPTOR WORD
    local word value more
    if ! read -r -t 120 -u "$2" word value more || [ "$word" != "$3" ]; then
        echo "$1 did not say \"$3\" within two minutes" >&2
        exit 1
    fi
    echo "$value $more"
}

read -r _ broker <<<"$(answer receiver "$from_receiver" ready)"
answer sender "$from_sender" ready >/dev/null || exit 1
echo "the broker is $broker; stopped while $count values pass"
kill -STOP "$broker" || exit 1
echo go >&"$to_receiver"
echo go >&"$to_sender"
sent=$(answer sender "$from_sender" "done") || exit 1
received=$(answer receiver "$from_receiver" "done") || exit 1
kill -CONT "$broker"
echo bye >&"$to_receiver"
echo bye >&"$to_sender"
wait "$sender" || { echo "the sender failed"; exit 1; }
wait "$receiver" || { echo "the receiver failed"; exit 1; }

status=0
for side in send recv; do
    calls=$(awk '$NF == "total" { print $4 }' "$work/$side.calls")
    echo "$side: $calls system calls for $count values"
    if [ -z "$calls" ] || [ "$calls" -ge $limit ]; then
        echo "that is not fewer than $limit:"
        cat "$work/$side.calls"
        status=1
    fi
done
echo "the sender took $((sent / count)) ns a value, the receiver $((received / count)) ns"
exit $status
