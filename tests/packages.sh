# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# Sourced by ./demo and ./test: looks that what they need is installed, and on
# Debian and its children installs what is not. With everything in place it
# only asks dpkg; the network is touched when something is missing, and then
# the package lists are fetched once.

XI_PACKAGES_BUILD="gcc libc6-dev cmake ninja-build pkg-config liburing-dev python3 python3-dev procps"
# Peers of the benchmark. redis-tools holds the server's binary, too, without the service that redis-server would start.
XI_PACKAGES_BENCH="g++ libboost-dev libzmq3-dev libnng-dev mpich libmpich-dev openmpi-bin libopenmpi-dev libhiredis-dev \
redis-tools libnats-dev nats-server libiceoryx-binding-c-dev iceoryx python3-numpy python3-zmq strace"
XI_PACKAGES_TEST="clang libclang-rt-dev check libsubunit-dev python3-numpy python3-hypothesis python3-pip python3-trio python3-uvloop \
mypy python3-typeshed valgrind strace"

# need_packages NAME...: returns when all are installed; otherwise says what to do and exits.
need_packages() {
    local package missing=""
    if ! command -v dpkg-query >/dev/null; then
        need_tools
        return
    fi
    for package in "$@"; do
        dpkg-query -W -f='${Status}\n' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0

    local as_root=""
    if [ "$(id -u)" -ne 0 ]; then
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
            as_root="sudo"
        else
            echo "Some packages are missing and this is not root. Please run, then try again:" >&2
            echo "    sudo apt-get install -y$missing" >&2
            exit 2
        fi
    fi
    echo "installing:$missing"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # lists of words
    if ! { $as_root apt-get -qq update && $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install -y --no-install-recommends $missing; } >/tmp/xi-apt.$$ 2>&1 </dev/null; then
        tail -n 20 /tmp/xi-apt.$$ >&2
        rm -f /tmp/xi-apt.$$
        echo "apt-get could not install:$missing" >&2
        exit 2
    fi
    rm -f /tmp/xi-apt.$$
}

# Where there is no dpkg: the tools must be there already.
need_tools() {
    local tool missing=""
    for tool in cc cmake ninja pkg-config python3; do
        command -v "$tool" >/dev/null || missing="$missing $tool"
    done
    if command -v pkg-config >/dev/null && ! pkg-config --atleast-version=2.3 liburing; then
        missing="$missing liburing(>=2.3)"
    fi
    [ -z "$missing" ] && return 0
    echo "Please install these with this system's package manager, then try again:$missing" >&2
    exit 2
}
