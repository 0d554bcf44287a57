#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# The wheel for the stable ABI: builds it once with the system's CPython, looks
# that its module wants nothing of CPython but what the limited API declares,
# and runs tests of the module with it on every CPython from 3.11 on that is
# here: a fair part of them, or with XI_TEST_LONG=1 on the system's all.
set -u

unset PYTHONPATH PYTHONHOME PIP_FIND_LINKS PIP_CONFIG_FILE VIRTUAL_ENV
export PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
work=$(mktemp -d)
chmod 755 "$work" # another user imports it too
trap 'rm -rf "$work"' EXIT
checks=0

fail() { echo "FAILED: $*"; exit 1; }
check() { # WHAT COMMAND...
    local what=$1
    shift
    "$@" >"$work/log" 2>&1 || { tail -n 40 "$work/log"; fail "$what"; }
    checks=$((checks + 1))
}

builder=/usr/bin/python3
[ -x $builder ] || builder=$(command -v python3)
why=$("$builder" -I - 2>&1 <<'PY'
import os, sys, sysconfig
if sys.version_info < (3, 11) or sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
    raise SystemExit("%s has not the limited API of 3.11" % sys.executable)
if not os.path.exists(sysconfig.get_path("include") + "/Python.h"):
    raise SystemExit("%s has no headers" % sys.executable)
try:
    import pip, venv
except ImportError as error:
    raise SystemExit(str(error))
if tuple(int(n) for n in pip.__version__.split(".")[:2]) < (22, 3):
    raise SystemExit("pip %s is older than 22.3" % pip.__version__)
PY
) || { echo "skipped: $why"; exit 77; }

# ---- the wheel

# What is built stays for the next run: as with the build folder itself, what has changed is built anew.
check "pip builds the wheel" "$builder" -I -m pip wheel --no-deps --config-settings abi3=yes \
    --config-settings "build-dir=$XI_BUILD/abi3" -w "$work/out" "$XI_SOURCE"
wheel=$(echo "$work"/out/*.whl)
case ${wheel##*/} in
    xidata-*-cp311-abi3-linux_*.whl) ;;
    *) fail "the wheel is called ${wheel##*/}" ;;
esac
check "the wheel is unpacked" "$builder" -I -m zipfile -e "$wheel" "$work/wheel"
modules=$(cd "$work/wheel/xidata" && echo *.so)
[ "$modules" = _xidata.abi3.so ] || fail "the wheel holds $modules"
grep -qx "Tag: cp311-abi3-linux_.*" "$work"/wheel/*.dist-info/WHEEL || fail "WHEEL says $(cat "$work"/wheel/*.dist-info/WHEEL)"
checks=$((checks + 2))
if "$builder" -I -m pip wheel --no-deps --config-settings abi3=maybe -w "$work/none" "$XI_SOURCE" >"$work/log" 2>&1; then
    fail "abi3=maybe was taken for something"
fi
grep -q "abi3 is yes or no" "$work/log" || fail "abi3=maybe: $(cat "$work/log")"

# ---- what it wants of CPython

names() { grep -oE '\b_?Py[A-Z_][A-Za-z_0-9]*' | sort -u; }
include=$("$builder" -I -c 'import sysconfig; print(sysconfig.get_path("include"))')
# A name that is declared under the limited API of 3.11; what is only defined there, a macro, no binary can want.
printf '#define PY_SSIZE_T_CLEAN\n#include <Python.h>\n' |
    "${CC:-cc}" -E -DPy_LIMITED_API=0x030b0000 -I "$include" - | names >"$work/limited"
nm -D --undefined-only "$work/wheel/xidata/_xidata.abi3.so" | awk '{ print $NF }' | names >"$work/wanted"
[ "$(wc -l <"$work/wanted")" -gt 100 ] || fail "only $(wc -l <"$work/wanted") names of CPython are wanted: is this the module?"
for name in PyUnicode_New PySys_Audit _PyLong_AsByteArray PyObject_Vectorcall; do
    if grep -qx $name "$work/limited"; then fail "$name counts as one of the limited API"; fi
done
outside=$(comm -13 "$work/limited" "$work/wanted")
[ -z "$outside" ] || fail "the module wants what the limited API has not: $outside"
checks=$((checks + 3))

# ---- what it does

file_of() { "$1" -I -c 'import sys, xidata._xidata as m; print(m.__file__)'; }
part=(values types codecs)
[ -n "${XI_TEST_LONG:-}" ] || export XI_TEST_BIG=0 # what is big takes long for its pages, whatever the module's ABI
all=("$XI_SOURCE"/tests/system/test_python_*.py)
all=("${all[@]##*/test_python_}")
all=("${all[@]%.py}")
done_for=" "
for python in "$builder" /usr/bin/python3.1[1-9] "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3 /opt/python/*/bin/python3; do
    [ -x "$python" ] || continue
    version=$("$python" -I -c 'import sys, sysconfig
usable = sys.version_info >= (3, 11) and sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
print("%d.%d" % sys.version_info[:2] if usable else "")' 2>/dev/null)
    case $done_for in *" $version "*) continue ;; esac
    [ -n "$version" ] || continue
    venv=$work/venv$version
    # With the system's packages: the arrays are numpy's.
    check "a virtual environment of $version" "$python" -I -m venv --without-pip --system-site-packages "$venv"
    if "$python" -I -m pip --version >"$work/log" 2>&1; then
        check "pip installs the wheel on $version" "$python" -I -m pip --python "$venv/bin/python" install --no-deps "$wheel"
    else # a wheel of packages alone is installed when it lies there
        check "the wheel lies on $version's path" cp -r "$work/wheel/." "$venv/lib/python$version/site-packages"
    fi
    check "$version imports it" file_of "$venv/bin/python"
    grep -qx "$venv/lib.*/_xidata.abi3.so" "$work/log" || fail "$version imports $(cat "$work/log")"
    ran=0 tests=("${part[@]}")
    if [ -n "${XI_TEST_LONG:-}" ] && [ "$python" = "$builder" ]; then tests=("${all[@]}"); fi
    for name in "${tests[@]}"; do
        bash "$XI_SOURCE/tests/run.sh" "$venv/bin/python" "$XI_SOURCE/tests/system/test_python_$name.py" >"$work/log" 2>&1
        case $? in
            0) ran=$((ran + 1)) ;;
            77) ;;
            *) tail -n 60 "$work/log"; fail "$name on $version" ;;
        esac
    done
    [ $ran -gt 0 ] || fail "no test ran on $version"
    echo "$version: $ran of ${#tests[@]} tests"
    checks=$((checks + ran))
    done_for="$done_for$version "
done
case $done_for in *" $("$builder" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])') "*) ;; *) fail "ran on$done_for" ;; esac

# ---- beside the wheel of a version, pip takes that one

own=$("$builder" -I -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
cp "$wheel" "${wheel/cp311-abi3/$own-$own}"
check "pip chooses" "$builder" -I -m pip download --no-deps --find-links "$work/out" -d "$work/chosen" xidata
chosen=$(cd "$work/chosen" && echo *)
case $chosen in xidata-*-"$own-$own"-*) ;; *) fail "pip chose $chosen" ;; esac
echo "abi3 on$done_for: $checks checks"
