#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Gives full.c a /dev/shm of 24 MiB that nobody else sees (a mount namespace of
# its own), first with no broker, then with one.
set -u

own_mounts() { unshare --mount --propagation private "$@"; }
if ! own_mounts true 2>/dev/null; then
    own_mounts() { unshare --user --map-root-user --mount --propagation private "$@"; }
    if ! own_mounts true 2>/dev/null; then
        echo "no mount namespace may be made here; skipped"
        exit 77
    fi
fi
for state in cold warm; do
    # shellcheck disable=SC2016 # for the inner shell
    own_mounts bash -c 'mount -t tmpfs -o size=24m,mode=1777 full /dev/shm || exit 77
        "$XI_BUILD/tests/full" "$1" || exit
        # Nobody outside can see whether this /dev/shm comes clean.
        flock -w 10 "$XI_RUNTIME_DIR/$XI_NAMESPACE.lock" true || { echo "the broker has not left"; exit 1; }
        [ -z "$(ls /dev/shm)" ] || { echo "left behind:"; ls -l /dev/shm; exit 1; }' - $state || exit
    echo "$state: ok"
done
