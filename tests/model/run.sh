#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Explores every model here exhaustively within its bounds, then its mutants,
# each of which must fail.
#
#   tests/model/run.sh [MODEL...]
#
# Needs spin and a C compiler. A line for each exploration: verdict, states, what;
# then one of figures.
set -u
cd "$(dirname "$0")" || exit 1
command -v spin >/dev/null || { echo "spin is not installed: apt-get install spin" >&2; exit 2; }
work=$(mktemp -d "${TMPDIR:-/tmp}/xi-model.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
bad=0 explored=0 total=0

# explore MODEL OPTION...: the number of errors in `errors`, of states in `states`
explore() {
    local model=$1
    shift
    rm -rf "$work/run" && mkdir "$work/run"
    cp "$model.pml" "$work/run/model.pml"
    errors=none states=0
    (cd "$work/run" && spin "$@" -a model.pml >log 2>&1 && cc -O1 -DSAFETY -DNOFAIR -DCOLLAPSE -DMEMLIM=2000 -o pan pan.c >>log 2>&1 &&
        ./pan -m2000000 -E >result 2>&1)
    if ! grep -q 'errors:' "$work/run/result" 2>/dev/null || grep -q 'max search depth too small\|out of memory' "$work/run/result"; then
        cat "$work/run/log" "$work/run/result" 2>/dev/null
        return
    fi
    errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' "$work/run/result")
    states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' "$work/run/result")
    explored=$((explored + 1)) total=$(awk "BEGIN { printf \"%d\", $total + $states }")
}

holds() { # MODEL OPTION...: every interleaving keeps the promise
    explore "$@"
    local verdict=holds
    [ "$errors" = 0 ] || { verdict="FAILS"; bad=$((bad + 1)); }
    printf '%-8s %12s states  %s\n' "$verdict" "$states" "$*"
}

caught() { # MODEL OPTION...: a mutant; exploring it must find an error
    explore "$@"
    local verdict=caught
    case "$errors" in 0 | none) verdict="SURVIVES"; bad=$((bad + 1)) ;; esac
    printf '%-8s %12s states  %s\n' "$verdict" "$states" "$*"
}

park() {
    holds park -DSENDERS=1 -DRECEIVERS=1 -DVALUES=3 -DLEAVERS=1
    holds park -DSENDERS=1 -DRECEIVERS=2 -DVALUES=2 -DLEAVERS=0
    holds park -DSENDERS=1 -DRECEIVERS=2 -DVALUES=1 -DLEAVERS=1
    holds park -DSENDERS=2 -DRECEIVERS=1 -DVALUES=1 -DLEAVERS=1
    local mutant
    for mutant in NO_PASS NO_LOOK NO_RELOOK LOOK_FIRST; do
        caught park -DSENDERS=1 -DRECEIVERS=1 -DVALUES=2 -DLEAVERS=1 -D$mutant
    done
    caught park -DSENDERS=1 -DRECEIVERS=2 -DVALUES=1 -DLEAVERS=1 -DNO_PASS_ON
}

records() {
    local small=(-DPRODUCERS=1 -DCONSUMERS=1 -DVALUES=2 -DKILLS=1) mutant
    local two=(-DPRODUCERS=1 -DCONSUMERS=2 -DKILLS=1)
    holds records -DPRODUCERS=1 -DCONSUMERS=1 -DVALUES=2 -DKILLS=2 -DBROKER_KILLS=1
    holds records "${two[@]}" -DVALUES=2
    holds records -DPRODUCERS=2 -DCONSUMERS=1 -DVALUES=1 -DKILLS=1
    holds records -DPRODUCERS=2 -DCONSUMERS=1 -DVALUES=2 -DKILLS=1 -DINLINE -DBATCH=2
    holds records -DPRODUCERS=2 -DCONSUMERS=2 -DVALUES=1 -DKILLS=1 -DINLINE
    for mutant in HEADER_EARLY TAIL_EARLY NUMBER_LATE NO_WALK FREE_EARLY LOOK_LATE; do
        caught records "${small[@]}" -D$mutant
    done
    for mutant in NO_JUDGE JUDGE_LATE LOOK_ONCE; do
        caught records "${two[@]}" -DVALUES=2 -D$mutant
    done
    for mutant in KEY_LATE DROP_EARLY; do
        caught records "${two[@]}" -DVALUES=1 -D$mutant
    done
    caught records "${two[@]}" -DVALUES=3 -DNO_GENERATION
    caught records -DPRODUCERS=1 -DCONSUMERS=1 -DVALUES=4 -DKILLS=0 -DINLINE -DZERO_LATE
    caught records -DPRODUCERS=1 -DCONSUMERS=1 -DVALUES=1 -DKILLS=1 -DBROKER_KILLS=1 -DNO_SLOT_0
}

groups() {
    local joins=(-DKILLS=0 -DOLD=2 -DNEW=0 -DACKS) killed=(-DKILLS=1 -DOLD=2 -DNEW=0) sent=(-DOLD=1 -DNEW=1) mutant
    holds groups "${killed[@]}"
    holds groups "${killed[@]}" -DACKS -DFIRST_WORD
    holds groups -DKILLS=1 -DOLD=1 -DNEW=0 -DACKS -DBROKER_KILLS=1
    holds groups "${sent[@]}" -DKILLS=1
    holds groups -DKILLS=0 -DOLD=2 -DNEW=1 -DACKS
    for mutant in LOOK_FIRST NO_LOOK LOOK_ONCE KEPT; do
        caught groups "${joins[@]}" -D$mutant
    done
    for mutant in NO_JOINING ACTIVE_EARLY DRAIN_EARLY FREE_EARLY; do
        caught groups "${killed[@]}" -D$mutant
    done
    caught groups "${sent[@]}" -DKILLS=1 -DGIVE_UP
    caught groups "${sent[@]}" -DKILLS=0 -DGROUPS_EARLY
}

adopt() {
    local mutant
    holds adopt -DKILLS=1 -DBROKER_KILLS=1
    holds adopt -DKILLS=1 -DBROKER_KILLS=2
    for mutant in NUMBERS_LATE KEEP_STRAYS KEEP_UNKNOWN TRUST_SLOTS CLEAR_EARLY; do
        caught adopt -DKILLS=1 -DBROKER_KILLS=1 -D$mutant
    done
}

moves() {
    local killed=(-DVALUES=3 -DRINGS=1 -DKILLS=1) forgot=(-DVALUES=2 -DRINGS=1 -DKILLS=0 -DBROKER_KILLS=1) mutant
    holds moves "${killed[@]}"
    holds moves -DVALUES=2 -DRINGS=1 -DKILLS=1 -DBROKER_KILLS=1
    holds moves -DVALUES=2 -DRINGS=1 -DKILLS=1 -DWRONG
    holds moves -DVALUES=2 -DRINGS=1 -DKILLS=1 -DGROUPS=2 -DSHRINKERS=0
    holds moves -DVALUES=1 -DRINGS=1 -DKILLS=1 -DSENDERS=2
    holds moves -DVALUES=3 -DRINGS=2 -DKILLS=0 -DBROKER_KILLS=1
    for mutant in NO_GROUPS COPY_EARLY NO_EMPTY NO_FOLLOW NEXT_KEPT HOME_DIRTY HOME_EARLY FREE_EARLY; do
        caught moves "${killed[@]}" -D$mutant
    done
    for mutant in NO_GONE NO_NEXT LOOK_ONCE RING_FIRST; do
        caught moves "${forgot[@]}" -D$mutant
    done
    caught moves -DVALUES=2 -DRINGS=1 -DKILLS=1 -DBROKER_KILLS=1 -DNAME_FIRST
    caught moves -DVALUES=3 -DRINGS=2 -DKILLS=0 -DBROKER_KILLS=1 -DNAME_FIRST
    caught moves -DVALUES=2 -DRINGS=1 -DKILLS=1 -DWRONG -DOLD_VIEW
}

acks() {
    local one=(-DVALUES=1 -DWINDOW=1 -DKILLS=1) mutant
    holds acks "${one[@]}"
    holds acks "${one[@]}" -DEXTEND
    holds acks "${one[@]}" -DBROKER_KILLS=1
    holds acks "${one[@]}" -DTIMED=0 -DEXTEND -DBROKER_KILLS=1
    holds acks -DVALUES=2 -DKILLS=0
    holds acks -DVALUES=2 -DTIMED=0 -DMAX=1 -DKILLS=1
    for mutant in SEQ_EARLY FREE_EARLY NO_OWNER KEEP_COUNT NUMBER_LATE DUE_FIRST NO_JUDGE JUDGE_LATE NO_MEND NO_ENDS SLEEP_ON; do
        caught acks "${one[@]}" -D$mutant
    done
    for mutant in READY_FIRST MOVING_LAST; do
        caught acks "${one[@]}" -DTIMED=0 -DBROKER_KILLS=1 -DEXTEND -D$mutant
    done
}

lingers() {
    local mutant
    holds lingers -DKILLS=1
    holds lingers -DKILLS=0 -DEXPIRES=1
    holds lingers -DKILLS=1 -DWINDOW=1 -DEXPIRES=1
    holds lingers -DKILLS=1 -DWINDOW=1 -DBROKER_KILLS=1
    holds lingers -DKILLS=0 -DHANDS=2
    for mutant in NO_WORD HOLDER_FIRST BIT_FIRST NO_LOOK ALONE NO_OTHERS IN_FLIGHT WORD_FREED COUNT_FIRST NO_COUNTING NO_MEND NO_WORDS NO_COUNT \
        DEAD_LINGER; do
        caught lingers -DKILLS=1 -D$mutant
    done
    caught lingers -DKILLS=1 -DHANDS=2 -DWORD_LATE
    caught lingers -DKILLS=1 -DWINDOW=1 -DBROKER_KILLS=1 -DDEAD_FREED # a second repair finds nothing to release
}

models=(park records groups adopt moves acks lingers)
[ $# -eq 0 ] || models=("$@")
for model in "${models[@]}"; do
    if [ ! -f "$model.pml" ]; then
        echo "there is no model $model here" >&2
        exit 2
    fi
    "$model"
done
printf '%d explorations, %d states, %d failures\n' $explored "$total" $bad
[ $bad -eq 0 ]
