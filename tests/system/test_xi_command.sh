#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# The command xi as a user meets it: what it prints, what it says when something is wrong, and its exit statuses.
# Prints a line "ok" or "not ok" for each behaviour; status 1 if one is not.
#
#   XI_BIN=build/bin bash tests/system/test_xi_command.sh
set -u

XI_BIN=$(cd "${XI_BIN:-${XI_BUILD:-build}/bin}" && pwd) || exit 1
xi=$XI_BIN/xi
export PATH="$XI_BIN:$PATH" XI_BROKER="${XI_BROKER:-$XI_BIN/xi-broker}" NO_COLOR=1
own_runtime=
if [ -z "${XI_NAMESPACE:-}" ] || [ -z "${XI_RUNTIME_DIR:-}" ]; then
    export XI_NAMESPACE="cmd$$" XI_RUNTIME_DIR
    XI_RUNTIME_DIR=$(mktemp -d /tmp/xi.XXXXXXXX) && own_runtime=$XI_RUNTIME_DIR
fi
dir=$(mktemp -d) || exit 1
trap 'rm -rf -- "$dir" ${own_runtime:+"$own_runtime"}' EXIT

export XI_LINGER=60 # values outlive their senders for the whole test, which takes back all that it sends

failed=0
count=0
report() { # STATUS NAME
    count=$((count + 1))
    if [ "$1" -eq 0 ]; then echo "ok $count - $2"; else
        echo "not ok $count - $2"
        failed=$((failed + 1))
        [ -z "${3:-}" ] || printf '%s\n' "$3" | sed 's/^/#   /'
    fi
}
# is NAME GOT WANT
is() {
    if [ "$2" = "$3" ]; then report 0 "$1"; else report 1 "$1" "got:  $2
want: $3"; fi
}
# has NAME GOT PART
has() {
    case $2 in *"$3"*) report 0 "$1" ;; *) report 1 "$1" "got:  $2
want: ...$3..." ;; esac
}
# status NAME WANT COMMAND...: its exit status; output in $out, messages in $err.
status() {
    local name=$1 want=$2
    shift 2
    timeout -k 5 20 "$@" >"$dir/out" 2>"$dir/err" </dev/null
    local got=$?
    out=$(cat "$dir/out") err=$(cat "$dir/err")
    if [ $got -eq "$want" ]; then report 0 "$name"; else report 1 "$name" "status $got, expected $want
$out
$err"; fi
}
# Waits until a command succeeds; its own failure is reported by what follows.
until_true() { timeout 10 bash -c 'until eval "$1"; do sleep 0.02; done' _ "$1" >/dev/null 2>&1; }
gone() { until_true "! kill -0 $1 2>/dev/null"; }

# ---- a namespace that is open to other users

export XI_OPEN_DIR=$dir/open
mkdir -m 755 "$XI_OPEN_DIR" # whatever the umask: one that others may write into is refused
ns=$XI_NAMESPACE.open
mkfifo "$dir/ready"
"$XI_BROKER" -n "$ns" --open-to '#61002,@61050' --ready-fd 3 3>"$dir/ready" 2>/dev/null &
opened=$!
is "an open broker is ready" "$(cat "$dir/ready")" ready
status "a channel for others" 0 "$xi" send -n "$ns" jobs --access '61002:r,@61050:rw' 1
status "ls: an open namespace" 0 "$xi" ls -n "$ns"
has "ls: whom it is open to" "$out" "open to 61002,@61050"
has "ls: what others may do" "$out" "61002:r,@61050:rw"
status "ls --json: an open namespace" 0 "$xi" ls -n "$ns" --json
has "ls --json: what others may do" "$out" '"access":"61002:r,@61050:rw"'
has "ls --json: whom it is open to" "$out" '"open_to":"61002,@61050"'
status "doctor: an open namespace" 0 "$xi" doctor -n "$ns"
has "doctor: whom it is open to" "$out" "open to 61002,@61050"
status "a user who serves nothing" 1 "$xi" ls -n "61002/$ns"
has "a user who serves nothing: says so" "$err" "user 61002 serves no open namespace"
status "a list that is none" 1 "$xi" send -n "$ns" more --access '61002' 1
has "a list that is none: what is allowed" "$err" "NAME:r"
status "a namespace for nobody" 2 "$XI_BROKER" -n "$ns" --open-to 'no-such-user-here'
status "what is open is received" 0 "$xi" recv -n "$ns" -c 1 jobs
is "what is open is received: the value" "$out" 1
kill "$opened"
wait "$opened"
report $? "an open broker ends as it should"
is "nothing is left where others come in" "$(find "$XI_OPEN_DIR" -name '*.sock')" ""
status "private: no list" 1 "$xi" send private --access '61002:r' 1
has "private: says how" "$err" "--open-to"

# ---- the command line

status "--version" 0 "$xi" --version
has "--version names the version" "$out" "xi 0."
status "without command: usage" 2 "$xi"
has "usage lists the commands" "$err" "xi doctor"
status "help" 0 "$xi" help
for c in ls send recv tail call close rm group ack dead run doctor broker; do
    status "help $c" 0 "$xi" help $c
    has "help $c has an example" "$out" "example"
done
status "send --help" 0 "$xi" send --help
status "unknown command" 2 "$xi" resv
has "unknown command: a guess" "$err" "did you mean recv"
status "unknown option" 2 "$xi" send --nope x 1
has "unknown option: named" "$err" "--nope"
status "option without value" 2 "$xi" recv x -n
status "bad namespace" 2 "$xi" recv -n 'a b' x
has "bad namespace: what is allowed" "$err" "A-Z"
status "bad time" 2 "$xi" recv -t soon x
status "no channel" 2 "$xi" send
status "two channels" 2 "$xi" recv a b
status "bad mode" 2 "$xi" send --mode both x 1

# ---- values

status "send three" 0 "$xi" send jobs 1 '"two"' '{"three":[3,null]}'
status "receive three" 0 "$xi" recv -c 3 jobs
is "in order" "$out" '1
"two"
{"three":[3,null]}'

cat >"$dir/values" <<'END'
[null,true,-0.0,0.1,1e+300,123456789012345678901234567890]
{"$tuple":[{"$bytes":"AAEC"},{"$set":[1]},{"$frozenset":[]},{"$dict":[[1,2],[null,3]]}]}
{"$ndarray":{"dtype":"<u2","shape":[2,3],"data":"AAABAAIAAwAEAAUA"}}
[{"$datetime":"2024-05-01T12:00:00+02:00"},{"$uuid":"123e4567-e89b-12d3-a456-426614174000"},{"$decimal":"1.10"}]
[{"$float":"nan"},{"$complex":[1.5,{"$float":"-inf"}]},"\ud800",{"$dict":[["$x",1]]}]
{"$buffer":"YWJjZGVm"}
{"$pickle":["gAU=",{"$buffer":"AAEC"}]}
END
timeout 20 "$xi" send tags <"$dir/values" && timeout 20 "$xi" recv -c 7 tags >"$dir/back"
is "all tags come back" "$(cat "$dir/back")" "$(cat "$dir/values")"
timeout 20 "$xi" send a <"$dir/values"
timeout 20 "$xi" close a &
wait $!
timeout 20 "$xi" recv a | timeout 20 "$xi" send b
status "what went through recv | send" 0 "$xi" recv -t 0 b
is "recv | send changes nothing" "$out" "$(cat "$dir/values")"

head -c 300000 /dev/urandom >"$dir/blob"
status "send a file" 0 "$xi" send --bytes "$dir/blob" blobs
timeout 20 "$xi" recv --raw -c 1 blobs >"$dir/blob.back"
cmp -s "$dir/blob" "$dir/blob.back"
report $? "300 kB of bytes come back, raw"
printf 'plain "text"\n\ngr\xc3\xbc\xc3\x9fe\n' | timeout 20 "$xi" send --text lines
status "receive text raw" 0 "$xi" recv -t 0 --raw lines
is "text lines come back" "$out" $'plain "text"\n\ngr\xc3\xbc\xc3\x9fe'
status "text as a value" 0 "$xi" send --text words 'hello "you"' -- -5
status "receive it as JSON" 0 "$xi" recv -c 2 words
is "text became str" "$out" '"hello \"you\""
"-5"'
printf '\xff\n' | timeout 20 "$xi" send --text words 2>"$dir/err"
is "text that is not UTF-8: status" "${PIPESTATUS[1]}" 1
has "text that is not UTF-8: advice" "$(cat "$dir/err")" "--bytes"

status "a mistake in the second value" 2 "$xi" send jobs 1 '[1,]' 3
has "says which and where" "$err" "value 2, column 4: expected a value"
status "nothing of it was sent" 1 "$xi" recv -t 0 jobs
has "empty: says so" "$err" "nothing came"
printf '1\n\n{"a":1,\n' | timeout 20 "$xi" send jobs 2>"$dir/err"
is "a mistake in the input: status" "${PIPESTATUS[1]}" 1
has "a mistake in the input: line" "$(cat "$dir/err")" "line 3 of the input"
status "what was before it was sent" 0 "$xi" recv -t 0 jobs
is "what was before it" "$out" 1

# ---- waiting, closing, groups

status "receive times out" 1 "$xi" recv -t 100ms empty
status "send to a full channel times out" 1 bash -c "yes '\"0123456789012345678901234567890123456789\"' | head -100000 | '$xi' send -t 100ms full"
has "full: advice" "$err" "is full"
has "full: how many were sent" "$err" "values before it were sent"
status "drain it" 0 "$xi" recv -t 0 full
status "send, then close" 0 "$xi" send closing 1 2
status "close" 0 "$xi" close closing
status "send after close" 1 "$xi" send closing 3
has "closed: says so" "$err" "closed"
status "receivers get the rest and the end" 0 "$xi" recv closing
is "the rest" "$out" '1
2'
status "close what is not there" 1 "$xi" close nothing-like-this

# ---- removing

status "send what is removed" 0 "$xi" send removed 1 2 3
status "rm" 0 "$xi" rm removed
status "recv after rm finds a new channel" 1 "$xi" recv -t 0 removed
status "rm what is not there" 1 "$xi" rm removed nothing-like-this
has "rm: names it" "$err" "nothing-like-this"
status "rm without a name" 2 "$xi" rm
"$xi" recv --mode broadcast --group slow grouped >/dev/null 2>"$dir/slow" &
slow=$!
until_true "'$xi' group grouped | grep -q slow"
status "send to a group" 0 "$xi" send grouped 1
until_true "'$xi' group grouped | grep -q 'slow *- *0 *1 '"
status "group" 0 "$xi" group grouped
has "group: a line a group" "$out" "slow"
status "group --json" 0 "$xi" group --json grouped
has "group --json: its counters" "$out" '{"name":"slow","index":0,"owner":0,"acknowledges":false,"depth":0,"received":1,'
status "group --remove what is not there" 1 "$xi" group --remove none grouped
status "group --remove" 0 "$xi" group --remove slow grouped
wait $slow
is "group --remove: its receiver ends" $? 1
has "group --remove: and says why" "$(cat "$dir/slow")" "has ended"

# ---- acknowledgements, dead letters

status "send work" 0 "$xi" send work 1 '{"$buffer":"YWJj"}' '"three"'
status "recv --ack" 0 "$xi" recv --ack --max-deliveries 1 --dead-letters work.dead -c 1 work
is "recv --ack: the first" "$out" 1
status "recv without --ack" 1 "$xi" recv -t 0 work
has "recv without --ack: says how" "$err" "acknowledges"
status "recv --ack that cannot print" 1 bash -c "'$xi' recv --ack -c 1 work >/dev/full"
status "what was not printed is not acknowledged" 0 "$xi" recv --ack -c 1 work
is "but was delivered as often as may be: the next" "$out" '"three"'
status "recv --ack has all" 1 "$xi" recv --ack -t 0 work
status "dead" 0 "$xi" dead work.dead
has "dead: a table" "$out" "REASON"
has "dead: its letter" "$out" 'nacked  work     -               1  {"$buffer":"YWJj"}'
status "dead --json" 0 "$xi" dead --json work.dead
is "dead --json: all of it" "$out" '{"reason":"nacked","channel":"work","group":"","deliveries":1,"value":{"$buffer":"YWJj"}}'
status "dead takes nothing" 0 "$xi" dead work.dead
has "dead takes nothing: it is there" "$out" nacked
status "close another" 0 bash -c "'$xi' send shut 1 && '$xi' close shut"
status "dead --requeue to what is closed" 1 "$xi" dead --requeue --to shut work.dead
has "dead --requeue: says so" "$err" "closed"
status "rm what is closed" 0 "$xi" rm shut
status "dead --requeue" 0 "$xi" dead --requeue work.dead
is "dead --requeue: how many" "$out" "1 dead letter sent back"
status "what was sent back comes" 0 "$xi" recv --ack -c 1 work
is "with its buffer" "$out" '{"$buffer":"YWJj"}'
status "send what is no letter" 0 "$xi" send work.dead '[1,2]'
status "dead --requeue leaves it" 0 "$xi" dead --requeue work.dead
has "dead --requeue: says so" "$err" "no dead letter"
status "it is there" 0 "$xi" recv -c 1 work.dead
is "it is as it was" "$out" '[1,2]'
timeout 20 "$xi" recv work.dead >/dev/null & keeper=$!
until_true "'$xi' ls | grep -q work.dead"
status "dead: none" 0 "$xi" dead work.dead
is "dead: says so" "$out" "no dead letters"
kill $keeper
wait $keeper
status "dead of nothing" 1 "$xi" dead nothing-like-this

# ---- a command for each value

status "send tasks" 0 "$xi" send tasks 1 '{"a":[2]}' 3
status "ack: a command for each" 0 "$xi" ack --max-deliveries 2 --dead-letters tasks.dead -c 2 tasks sh -c 'read -r line; echo "$XI_DELIVERIES: $line"'
is "ack: what the command read" "$out" '1: 1
1: {"a":[2]}'
status "ack: a command that fails" 1 "$xi" ack --retry 0 -c 1 tasks sh -c 'exit 3'
has "ack: says so" "$err" "ended with status 3: the value is given back"
status "ack: a command that is killed" 1 "$xi" ack --retry 0 -c 1 tasks sh -c 'kill -9 $$'
has "ack: says by what" "$err" "signal 9"
status "ack: nothing is left to work on" 1 "$xi" ack -t 0 tasks true
status "ack: failed as often as may be" 0 "$xi" recv -c 1 tasks.dead
has "ack: it is a dead letter" "$out" '"deliveries":2,"value":3'
status "send one more" 0 "$xi" send tasks '"text"'
status "ack: a command that is not there" 127 "$xi" ack --retry 0 tasks "$dir/no-such-command"
has "ack: says which" "$err" "no-such-command"
"$xi" ack --raw tasks sh -c 'cat; : >"'"$dir/begun"'"; exec sleep 20' >"$dir/ack" 2>&1 & worker=$!
until_true "test -e '$dir/begun'"
kill -9 $worker
wait $worker 2>/dev/null
status "ack: dead at work" 0 "$xi" ack --raw -t 10 -c 1 tasks sh -c 'echo "$XI_DELIVERIES $(cat)"'
is "ack: somebody else works on it" "$out" "3 text"
rm "$dir/begun"
status "send the last" 0 "$xi" send tasks 4
"$xi" ack tasks sh -c ': >"'"$dir/begun"'"; exec sleep 20' 2>"$dir/ack" & worker=$!
until_true "test -e '$dir/begun'"
kill -TERM $worker
wait $worker
is "ack: told to stop" $? 143
status "ack: then it is given back" 0 "$xi" ack -t 10 -c 1 tasks true
status "ack: no command" 2 "$xi" ack tasks
# A group that somebody else made, whose deliveries are overdue after 0.3 s: not while a command works on them.
for told in nothing TERM; do
    status "send short work" 0 "$xi" send short 1
    status "ack: a group with little time" 1 "$xi" ack --ack-timeout 0.3 --retry 0 -c 1 short false
    rm -f "$dir/log"
    "$xi" ack -c 1 -t 10 short sh -c 'trap "" TERM; echo begun >>"'"$dir/log"'"; sleep 1' 2>"$dir/ack" & worker=$!
    until_true "test -e '$dir/log'"
    [ $told = nothing ] || kill -$told $worker
    status "ack: nobody else gets it meanwhile ($told)" 1 "$xi" ack -c 1 -t 1.5 short sh -c 'echo again >>"'"$dir/log"'"'
    wait $worker
    is "ack: it was worked on once ($told)" "$(cat "$dir/log" "$dir/ack")" begun
done

timeout 20 "$xi" recv --mode broadcast -c 3 news >"$dir/b1" & p1=$!
timeout 20 "$xi" recv --mode broadcast -c 3 news >"$dir/b2" & p2=$!
until_true "'$xi' ls --json | grep -q '\"groups\":2'"
status "broadcast" 0 "$xi" send news 1 2
status "a broadcast is no queue" 1 "$xi" recv --mode queue -t 0 news
has "a broadcast is no queue: says so" "$err" 'cannot open channel "news"'
status "end of the broadcast" 0 "$xi" send --mode broadcast news 3
wait $p1 $p2
is "every subscriber gets everything" "$(cat "$dir/b1" "$dir/b2")" '1
2
3
1
2
3'
timeout 20 "$xi" recv --mode broadcast -c 1 --group g shared >"$dir/b1" & p1=$!
timeout 20 "$xi" recv --mode broadcast -c 1 --group g shared >"$dir/b2" & p2=$!
until_true "'$xi' ls --json | grep -q '\"waiting\":2'"
status "to the members of a group" 0 "$xi" send shared 7 8
wait $p1 $p2
is "each value goes to one of them" "$(sort "$dir/b1" "$dir/b2")" '7
8'

timeout 20 "$xi" recv waiting >"$dir/w" & p1=$!
until_true "'$xi' ls | grep -q 'waiting  queue'"
status "to a waiting receiver" 0 "$xi" send waiting '"now"'
until_true "test -s '$dir/w'"
is "printed at once" "$(cat "$dir/w")" '"now"'
kill -INT "$(pgrep -P $p1 -f 'recv waiting')"
wait $p1
is "Ctrl-C: 130" $? 130
(timeout 20 "$xi" recv -t 5 heads; echo $? >"$dir/status") 2>/dev/null | head -1 >"$dir/w" & p1=$!
until_true "'$xi' ls | grep -q heads"
timeout 20 "$xi" send heads 1
until_true "test -s '$dir/w'"
until_true "'$xi' send heads 2; sleep 0.1; test -s '$dir/status'"
wait $p1
report $? "recv | head -1 ends when its reader has gone"
timeout 5 "$xi" recv -t 0 heads >/dev/null 2>&1

# ---- what a new channel is like, and where a group begins

status "bad size" 2 "$xi" send --grow much x 1
has "bad size: how to write it" "$err" "64k"
status "bad when-full" 2 "$xi" send --when-full wait x 1
status "bad --from" 2 "$xi" recv --from start x
status "bad --ttl" 2 "$xi" send --ttl 0 x 1
status "the latest value alone" 0 "$xi" send --values 1 --when-full drop latest 1 2 3
status "is received" 0 "$xi" recv -t 0 latest
is "the latest" "$out" 3
status "fail when full" 1 "$xi" send --values 2 --when-full fail few 1 2 3
has "fail when full: advice" "$err" "is full"
status "what was sent of it" 0 "$xi" recv -t 0 few
status "a ring that grows" 0 bash -c "yes '\"0123456789012345678901234567890123456789\"' | head -20000 | '$xi' send --capacity 4k --grow 16MiB -t 5 backlog"
is "all of it comes back" "$(timeout 20 "$xi" recv -t 0 backlog | wc -l)" 20000
status "values with a time to live" 0 "$xi" send --ttl 50ms mortal 1 2
status "and one for ever" 0 "$xi" send --ttl forever mortal 3
sleep 0.06
status "what is left of them" 0 "$xi" recv -t 0 mortal
is "expired values are not received" "$out" 3
status "nobody left who sends" 0 "$xi" recv --need-peer mortal

# ---- looking without taking

status "tail of a channel that is not there" 1 "$xi" tail nothing-like-this
status "five values" 0 "$xi" send watched 1 2 3 4 5
status "tail" 0 "$xi" tail -n 2 watched
is "tail: the last two" "$out" '4
5'
status "tail: nothing" 0 "$xi" tail -n 0 watched
is "tail -n 0" "$out" ""
timeout 20 "$xi" tail -f -n 1 watched >"$dir/t" & p1=$!
until_true "test -s '$dir/t'"
status "one more" 0 "$xi" send watched '{"six":6}'
until_true "grep -q six '$dir/t'"
is "tail -f goes on" "$(cat "$dir/t")" '5
{"six":6}'
kill -INT "$(pgrep -P $p1 -f 'tail -f')"
wait $p1
is "tail: Ctrl-C" $? 130
is "tail took nothing" "$(timeout 20 "$xi" recv -t 0 watched | wc -l)" 6
is "its group is gone" "$("$xi" ls --json | python3 -c '
import json, sys
print([c["groups"] for c in json.load(sys.stdin)["channels"] if c["name"] == "watched"])')" "[]"
status "four values" 0 "$xi" send history 1 2 3 4
status "a group that begins at the last two" 0 "$xi" recv --group g --from 2 -t 0 history
is "the last two" "$out" '3
4'
status "a group that begins at the oldest" 0 "$xi" recv --group h --from oldest -t 0 history
is "all of them" "$(printf '%s' "$out" | tr '\n' ' ')" "1 2 3 4"
status "the queue still has them" 0 "$xi" recv -t 0 history

# ---- told to stop in the middle of a line

mkfifo "$dir/lines"
for text in "" --text; do
    timeout 20 "$xi" send $text parts <"$dir/lines" & p1=$!
    exec 9>"$dir/lines"
    printf '{"a":1}\n123' >&9
    until_true "'$xi' ls --json | grep -q '\"name\":\"parts\".*\"depth\":1'"
    kill -TERM "$(pgrep -P $p1 -f 'send.*parts')"
    wait $p1
    is "send$text: told to stop" $? 143
    exec 9>&-
    status "send$text: what was whole is there" 0 "$xi" recv --raw -t 0 parts
    case $out in '{"a":1}' | '"{\"a\":1}"') report 0 "send$text: and no half of a line" ;; *) report 1 "send$text: and no half of a line" "$out" ;; esac
done

# ---- request and reply

answer=${XI_BUILD:-build}/tests/answer
status "call without a channel" 1 "$xi" call nobody 1
status "call with a bad value" 2 "$xi" call nobody '[1,'
has "call with a bad value: where" "$err" "column 4"
status "call without a value" 2 "$xi" call nobody
timeout 20 "$answer" echo & p1=$!
until_true "'$xi' ls | grep -q '^echo '"
timeout 20 "$xi" tail -f echo >"$dir/t" & p2=$!
until_true "'$xi' ls --json | grep -q '\"name\":\"echo\".*\"groups\":2'"
status "call" 0 "$xi" call echo '{"three":[3,null]}' --timeout 5
is "call: the reply" "$out" '[{"three":[3,null]}]'
until_true "test -s '$dir/t'"
is "who looks on sees the request, and does not answer" "$(cat "$dir/t")" '{"three":[3,null]}'
kill -INT "$(pgrep -P $p2 -f 'tail -f')"
wait $p2
kill -STOP "$(pgrep -P $p1)"
"$xi" call echo 5 >"$dir/r" 2>&1 & p2=$!
until_true "'$xi' ls --json | grep -q '\"name\":\"echo\".*\"depth\":1'"
for signal in STOP CONT STOP CONT; do # which interrupts a wait, and is no reason to give up
    kill -$signal $p2
    sleep 0.05
done
kill -CONT "$(pgrep -P $p1)"
wait $p2
is "call: stopped for a while" "$? $(cat "$dir/r")" '0 [5]'
status "call who ends over it" 1 "$xi" call echo '"stop"'
has "call who ends over it: says so" "$err" "died"
wait $p1
is "the server ended well" $? 0
status "keep the channel" 0 "$xi" send echo 1
status "call when nobody serves" 1 "$xi" call echo 2
has "call when nobody serves: says so" "$err" "echo"
status "what was sent is still there" 0 "$xi" recv -t 0 echo
timeout 20 bash -c "sleep 0.3 | '$xi' recv -t 3 slow >/dev/null" & p1=$!
until_true "'$xi' ls | grep -q '^slow '"
status "call who does not answer" 1 "$xi" call slow 1
wait $p1

# ---- ls

status "keep something" 0 "$xi" send shown 1 2 3
status "ls" 0 "$xi" ls
has "ls: channels" "$out" "shown    queue      3"
status "ls --json" 0 "$xi" ls --json
python3 - "$dir/out" <<'END'
import json, os, sys
d = json.load(open(sys.argv[1]))
c = {c["name"]: c for c in d["channels"]}["shown"]
assert d["namespace"] == os.environ["XI_NAMESPACE"] and d["broker_alive"]
assert c["depth"] == 3 and c["sent"] == 3 and c["mode"] == "queue" and c["capacity"] == 65536, c
END
report $? "ls --json holds what it should"
(for i in $(seq 400); do echo "$i"; sleep 0.005; done | timeout 20 "$xi" send shown) & p1=$!
status "ls --rate" 0 "$xi" ls --json --rate 0.5
python3 - "$dir/out" <<'END'
import json, sys
c = {c["name"]: c for c in json.load(open(sys.argv[1]))["channels"]}["shown"]
assert 10 < c["in_per_second"] < 400 and c["out_per_second"] == 0, c
END
report $? "ls --rate counts"
wait $p1
timeout 20 "$xi" ls --watch 0.1 >"$dir/watch" & p1=$!
until_true "[ \$(grep -c '^namespace' '$dir/watch') -ge 3 ]"
report $? "ls --watch shows again"
kill -INT "$(pgrep -P $p1 -f 'ls --watch')"
wait $p1
is "ls --watch: Ctrl-C" $? 130
status "ls of nothing" 1 "$xi" ls -n "$XI_NAMESPACE.none"
has "ls of nothing: what there is" "$err" "$XI_NAMESPACE"
status "empty it" 0 "$xi" recv -t 0 shown

# ---- run

status "run" 0 "$xi" run -n 3 -- sh -c 'echo $XI_RANK of $XI_SIZE; echo e$XI_RANK >&2'
is "run: ranks" "$(printf '%s\n' "$out" | sort)" '[0] 0 of 3
[1] 1 of 3
[2] 2 of 3'
is "run: error output" "$(printf '%s\n' "$err" | sort)" '[0] e0
[1] e1
[2] e2'
status "run: partial lines" 0 "$xi" run -n 2 -- sh -c 'printf "a\nb"'
is "run: partial lines end" "$(printf '%s\n' "$out" | sort)" '[0] a
[0] b
[1] a
[1] b'
status "run: long lines are not mixed" 0 "$xi" run -n 4 -- sh -c 'for i in 1 2 3; do head -c 30000 /dev/zero | tr "\0" $XI_RANK; echo; done'
is "run: long lines" "$(printf '%s\n' "$out" | cut -d' ' -f2 | awk '{print length($0)}' | sort -u)" 30000
is "run: long lines are whole" "$(printf '%s\n' "$out" | sed 's/\[\(.\)\] /\1/' | tr -s 0-9 | sort -u | tr '\n' ' ')" "0 1 2 3 "
status "run: exchange in a namespace of its own" 0 "$xi" run -n 2 -- sh -c \
    'if [ $XI_RANK = 0 ]; then xi send c 42; else xi recv -c 1 -t 10 c; fi'
is "run: exchanged" "$out" "[1] 42"
status "run: undelivered values are told" 0 "$xi" run -n 1 -- xi send lost 1 2
has "run: how many" "$err" '2 values on channel "lost" were never received'
is "run: its namespace is gone" "$(find /dev/shm -maxdepth 1 -name "xi.$(id -u).run-*" | wc -l)" 0
status "run: the worst status" 3 "$xi" run -n 3 --keep-going -- sh -c 'exit $((XI_RANK + 1))'
status "run: a signal" 137 "$xi" run -n 2 -- sh -c 'test $XI_RANK = 1 && kill -KILL $$; sleep 30'
has "run: tells who" "$err" "[1] was ended by signal 9"
status "run: one fails, the others are stopped" 5 "$xi" run -n 3 -- sh -c 'test $XI_RANK = 2 && exit 5; sleep 30'
status "run: stubborn ones are killed" 5 "$xi" run -n 2 --grace 200ms -- \
    bash -c 'if [ $XI_RANK = 1 ]; then sleep 0.3; exit 5; fi; trap "" TERM; while :; do sleep 1; done'
status "run: not found" 127 "$xi" run -n 2 -- "$dir/nothing"
has "run: not found, told" "$err" "No such file"
status "run: not executable" 126 "$xi" run -n 2 -- "$dir/values"
status "run: no count" 2 "$xi" run -- true
status "run: a name for -n" 2 "$xi" run -n lab true
status "run --ns" 0 "$xi" run -n 1 --ns "$XI_NAMESPACE" -- sh -c 'echo $XI_NAMESPACE'
is "run --ns: that namespace" "$out" "[0] $XI_NAMESPACE"

env --default-signal=INT "$xi" run -n 2 -- bash -c 'trap "echo got INT; exit 0" INT; echo ready; while :; do sleep 0.05; done' >"$dir/r" 2>&1 & p1=$!
until_true "[ \$(grep -c ready '$dir/r') = 2 ]"
kill -INT $p1
wait $p1
is "run: Ctrl-C" $? 130
is "run: Ctrl-C goes to all" "$(grep -c 'got INT' "$dir/r")" 2
env --default-signal=INT "$xi" run -n 2 -- bash -c 'trap "" INT TERM; echo ready; while :; do sleep 0.05; done' >"$dir/r" 2>&1 & p1=$!
until_true "[ \$(grep -c ready '$dir/r') = 2 ]"
kill -INT $p1
sleep 0.2
kill -0 $p1 2>/dev/null
report $? "run: the first Ctrl-C asks"
kill -INT $p1
wait $p1
is "run: the second Ctrl-C kills" $? 130
env --default-signal=INT "$xi" run -n 2 -- bash -c 'echo $$; trap "" INT TERM HUP; while :; do sleep 0.05; done' >"$dir/r" 2>&1 & p1=$!
until_true "[ \$(grep -c . '$dir/r') = 2 ]"
disown $p1
kill -KILL $p1
gone $p1
for pid in $(cut -d' ' -f2 "$dir/r"); do gone "$pid"; report $? "run: killed itself, it leaves no orphan"; done

# ---- doctor

status "doctor" 0 "$xi" doctor -n "$XI_NAMESPACE.none"
has "doctor: waiting" "$out" "waiting"
ns=$XI_NAMESPACE.stale
"$xi" send -n "$ns" keep 1
broker=$("$xi" ls -n "$ns" --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["broker_pid"])')
kill -KILL "$broker"
gone "$broker"
status "doctor: a dead broker" 1 "$xi" doctor -n "$ns"
has "doctor: names it" "$out" "ns $ns"
has "doctor: values" "$out" "1 undelivered values"
has "doctor: the command" "$out" "rm /dev/shm/xi.$(id -u).$ns.registry"
status "doctor --fix keeps values" 1 "$xi" doctor -n "$ns" --fix
status "a new broker serves them" 0 "$xi" recv -n "$ns" -c 1 -t 10 keep
is "the value outlived its broker" "$out" 1
until_true "! ls /dev/shm/xi.$(id -u).$ns.* 2>/dev/null"
"$xi" send -n "$ns" keep 1
broker=$("$xi" ls -n "$ns" --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["broker_pid"])')
kill -KILL "$broker"
gone "$broker"
status "doctor --fix --force" 0 "$xi" doctor -n "$ns" --fix --force
is "doctor: all of it is gone" "$(find /dev/shm -maxdepth 1 -name "xi.$(id -u).$ns.*" | wc -l)" 0
"$xi" send "live" 1
: >"/dev/shm/xi.$(id -u).$XI_NAMESPACE.deadbeef.00000002"
status "doctor: another epoch's file" 1 "$xi" doctor -n "$XI_NAMESPACE"
has "doctor: which" "$out" "xi.$(id -u).$XI_NAMESPACE.deadbeef.[0-9a-f]*"
status "doctor --fix: removes it" 0 "$xi" doctor -n "$XI_NAMESPACE" --fix
has "doctor --fix: says so" "$out" "removed: 1 file,"
status "doctor --fix leaves the living alone" 0 "$xi" recv -c 1 live
is "the living" "$out" 1
until_true "! ls /dev/shm/xi.$(id -u).$XI_NAMESPACE.* 2>/dev/null"
report $? "nothing is left in shared memory" "$("$xi" ls 2>&1; ls /dev/shm/xi.*)"

echo "1..$count"
[ $failed -eq 0 ] || echo "# $failed failed"
[ $failed -eq 0 ]
