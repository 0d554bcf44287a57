#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Runs the tests of the Python module on every CPython that it was built for,
# each in a namespace of its own. No pytest, no numpy needed.
#
#   python_matrix.sh [BUILD [FILE...]]      BUILD: the build folder, default ./build
set -u
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "${1:-$here/../../build}" && pwd) || exit 2
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- "$here"/test_python_*.py
export XI_BUILD="$build" PYTHONPATH="$build/python"
: "${PYENV_ROOT:=$HOME/.pyenv}"

failed=0
seen=
for python in /usr/bin/python3 /usr/bin/python3.{9,1[0-9]} "$PYENV_ROOT"/versions/*/bin/python3 /opt/python/*/bin/python3; do
    tag=$("$python" -I -c 'import sys; print(sys.implementation.cache_tag)' 2>/dev/null) || continue
    case " $seen " in *" $tag "*) continue ;; esac
    compgen -G "$build/python/xidata/_xidata.$tag*" >/dev/null || continue
    seen="$seen $tag"
    for file in "$@"; do
        if "$here/../run.sh" "$python" -W ignore::DeprecationWarning "$file" >"$build/python_matrix.log" 2>&1; then
            printf '%-14s %-28s %s\n' "$tag" "$(basename "$file")" "$(tail -n 1 "$build/python_matrix.log")"
        else
            printf '%-14s %-28s FAILED\n' "$tag" "$(basename "$file")"
            cat "$build/python_matrix.log"
            failed=1
        fi
    done
done
[ -n "$seen" ] || { echo "the module was built for no CPython: $build/python/xidata" >&2; exit 2; }
exit $failed
