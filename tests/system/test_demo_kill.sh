#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# A short demo, then one with each of its processes killed with -9 in the
# middle: the rest finish, or say what is missing and end within seconds; what
# arrived is right; nothing is left in /dev/shm.
set -u

[ -d "$XI_BUILD/python" ] || { echo "this build has no Python module; skipped"; exit 77; }
unset XI_NAMESPACE XI_RUNTIME_DIR XI_BROKER # the demo has its own
export XI_DEMO_FILES=200 XI_DEMO_SECONDS=12
python=python3
PYTHONPATH=$XI_BUILD/python $python -c 'import xidata' 2>/dev/null || python=/usr/bin/python3
export PYTHONPATH=$XI_BUILD/python
out=$(mktemp)
trap 'rm -f "$out"' EXIT
status=0

complain() {
    echo "$victim killed: $1"
    sed 's/^/    /' "$out"
    status=1
}

# Runs the demo and kills `victim` at the first sign of progress.
run() {
    local line pid="" role rest killed=0 began=$SECONDS
    : >"$out"
    exec {demo}< <(exec $python "$XI_SOURCE/tests/system/demo/conductor.py" 2>&1)
    local conductor=$!
    while IFS= read -r line <&"$demo"; do
        echo "$line" >>"$out"
        if [[ $line =~ ^started\ (.*)\ as\ process\ ([0-9]+)$ ]]; then
            role=${BASH_REMATCH[1]} rest=${BASH_REMATCH[2]}
            [ "$role" != "$victim" ] || pid=$rest
        elif [ $killed -eq 0 ] && [ -n "$pid" ] && [[ $line == collector:*" files/s"* ]]; then
            kill -KILL "$pid" && killed=1
        fi
    done
    wait "$conductor"
    ended=$?
    exec {demo}<&-
    took=$((SECONDS - began))
    [ "$victim" = nobody ] || [ $killed -eq 1 ] || complain "it had ended before it could be killed"
    [ $took -lt 60 ] || complain "the rest took $took s"
    grep -q '^nothing is left in /dev/shm' "$out" || complain "something is left in /dev/shm"
    ! grep -q 'DIFFER' "$out" || complain "the totals are wrong"
    ! grep -q 'Traceback' "$out" || complain "a process ended with a traceback"
}

says() { grep -qE "$1" "$out" || complain "nobody says: $1"; }

victim=nobody
run
[ $ended -eq 0 ] || complain "the demo failed"
says '^the totals agree'
says '0 blocks outstanding'

victim="worker 2"
run
[ $ended -eq 0 ] || complain "the demo failed"
says '^worker 2 was killed by SIGKILL'
says 'worker 2 died; ([0-9]+ file\(s\) sent again|no file went missing)'
says '^the totals agree'

victim=producer
run
[ $ended -eq 1 ] || complain "the status should say that the demo is incomplete, it is $ended"
says '^producer was killed by SIGKILL'
says '^collector: incomplete: the producer has gone'
says '^the totals of the [0-9]+ files that arrived agree'

victim=collector
run
[ $ended -eq 1 ] || complain "the status should say that the demo is incomplete, it is $ended"
says '^collector was killed by SIGKILL'
says '^producer: ends: the collector has gone'
says '^worker 1: ends: the collector has gone'

victim=broker
run
[ $ended -eq 0 ] || complain "the demo failed"
says '^broker was killed by SIGKILL'
says '^the totals agree'
exit $status
