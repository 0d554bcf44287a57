#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# What pip makes of this tree: packs the sources, builds a wheel from that
# archive alone, puts it into a fresh virtual environment and uses it there,
# with nothing of this build folder in reach and no network. With
# XI_TEST_LONG=1 on every CPython that the module is built for.
set -u

unset XI_BROKER PYTHONPATH PYTHONHOME PIP_FIND_LINKS PIP_CONFIG_FILE VIRTUAL_ENV
export PATH=/usr/local/bin:/usr/bin:/bin PIP_NO_INDEX=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
export PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
checks=0

fail() { echo "FAILED: $*"; exit 1; }
check() { # WHAT COMMAND...
    local what=$1
    shift
    "$@" >"$work/log" 2>&1 || { tail -n 30 "$work/log"; fail "$what"; }
    checks=$((checks + 1))
}

pythons=(/usr/bin/python3)
[ -x /usr/bin/python3 ] || pythons=("$(command -v python3)")
if [ -n "${XI_TEST_LONG:-}" ]; then
    pythons+=("${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3 /opt/python/*/bin/python3)
fi

usable() { # PYTHON: says why not
    "$1" -I - <<'PY'
import os, sys, sysconfig
if sys.version_info < (3, 9) or sys.implementation.name != "cpython":
    raise SystemExit(3)
if not os.path.exists(sysconfig.get_path("include") + "/Python.h"):
    raise SystemExit("no headers")
try:
    import pip, venv
except ImportError as error:
    raise SystemExit(str(error))
if tuple(int(n) for n in pip.__version__.split(".")[:2]) < (22, 3):
    raise SystemExit("pip %s is older than 22.3" % pip.__version__)
PY
}

cat >"$work/use.py" <<'PY'
# Run in the virtual environment: is the package whole, and does it start its own broker?
import json, os, subprocess, sys
import xidata
from xidata import interpreters

here = os.path.realpath(sys.prefix)
assert os.path.realpath(xidata.__file__).startswith(here), xidata.__file__
with xidata.channel("package") as channel:
    channel.send({"one": (1, 2.5, "three")})
    assert channel.recv(timeout=10) == {"one": (1, 2.5, "three")}
    child = "import xidata; xidata.channel('package').send('from a child')"
    subprocess.run([sys.executable, "-c", child], check=True, timeout=60)
    assert channel.recv(timeout=10) == "from a child"
    listed = subprocess.run([sys.prefix + "/bin/xi", "ls", "--json"], check=True, timeout=60, stdout=subprocess.PIPE).stdout
    exe = os.readlink("/proc/%d/exe" % json.loads(listed)["broker_pid"])
    assert exe == os.path.join(os.path.dirname(os.path.realpath(xidata.__file__)), "xi-broker"), exe
    interp = interpreters.create()
    assert interp.call(pow, 2, 10) == 1024
    interp.close()
    with xidata.InterpreterPoolExecutor(1) as pool:
        assert pool.submit(abs, -5).result(60) == 5
print(xidata.__version__)
PY

package() { # PYTHON
    local python=$1 out=$work/out venv=$work/venv version
    rm -rf "$out" "$venv"
    mkdir "$out"
    check "pip builds a wheel from the archive of sources" "$python" -I -m pip wheel --no-deps -w "$out" "$sdist"
    local -a wheels=("$out"/*.whl)
    [ ${#wheels[@]} = 1 ] && [ -f "${wheels[0]}" ] || fail "one wheel was to be made: ${wheels[*]}"
    check "a virtual environment" "$python" -I -m venv --without-pip "$venv"
    check "pip installs the wheel" "$python" -I -m pip --python "$venv/bin/python" install "${wheels[0]}"
    check "pip finds no fault" "$python" -I -m pip --python "$venv/bin/python" check
    check "the package works by itself" timeout 120 "$venv/bin/python" -I "$work/use.py"
    version=$(tail -n 1 "$work/log")
    case ${wheels[0]##*/} in xidata-"$version"-*) ;; *) fail "the wheel ${wheels[0]##*/} is of $version" ;; esac
    check "xi is a command" "$venv/bin/xi" --version
    grep -q "$version" "$work/log" || fail "xi --version says $(cat "$work/log"), the package $version"
    check "xi finds its broker" "$venv/bin/xi" broker --version
    for file in xi xi-broker; do
        if ldd "$venv/bin/$file" | grep uring && [ -n "$archive" ]; then fail "$file needs liburing.so"; fi
    done
    check "nothing but what is wanted lies in the wheel" wheel_holds "$python" "${wheels[0]}"
    check "pip uninstalls it" "$python" -I -m pip --python "$venv/bin/python" uninstall -y xidata
    [ -z "$(find "$venv" -iname '*xi*data*' -o -name xi -o -name xi-broker)" ] || fail "left by pip uninstall"
    echo "$("$python" -V): $(basename "${wheels[0]}"), $(stat -c %s "${wheels[0]}") bytes"
}

wheel_holds() { # PYTHON WHEEL: the digests in RECORD are right, every module is there, and no other version's extension
    "$1" -I - "$2" "$XI_SOURCE/libxi/bindings/python/xidata" <<'PY'
import base64, hashlib, os, sys, sysconfig, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
names = set(wheel.namelist())
record = [n for n in names if n.endswith(".dist-info/RECORD")][0]
listed = dict(line.split(",", 1) for line in wheel.read(record).decode().splitlines())
assert set(listed) == names, set(listed) ^ names
for name in names - {record}:
    digest = base64.urlsafe_b64encode(hashlib.sha256(wheel.read(name)).digest()).rstrip(b"=").decode()
    assert listed[name] == "sha256=%s,%d" % (digest, wheel.getinfo(name).file_size), name
package = {n[7:] for n in names if n.startswith("xidata/")}
wanted = {n for n in os.listdir(sys.argv[2]) if n.endswith((".py", ".pyi", ".typed"))}
wanted |= {"_xidata" + sysconfig.get_config_var("EXT_SUFFIX"), "xi-broker"}
assert package == wanted, package ^ wanted
PY
}

archive=$(find /usr/lib /usr/local/lib /usr/lib64 -name liburing.a -print -quit 2>/dev/null)
done_for=" "
sdist=""
for python in "${pythons[@]}"; do
    [ -x "$python" ] || continue
    why=$(usable "$python" 2>&1)
    case $? in
        0) ;;
        3) continue ;;
        *) echo "skipped: $python: $why"; continue ;;
    esac
    version=$("$python" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    case $done_for in *" $version "*) continue ;; esac
    if [ -z "$sdist" ]; then
        check "the archive of sources" "$python" -I -c 'import sys; sys.path.insert(0, sys.argv[1])
import xidata_build; xidata_build.build_sdist(sys.argv[2])' "$XI_SOURCE/libxi/bindings/python/wheel" "$work"
        sdist=$(echo "$work"/xidata-*.tar.gz)
        if tar -tzf "$sdist" | grep -E '/(build|\.git|__pycache__)(/|$)'; then fail "litter in the archive of sources"; fi
    fi
    package "$python"
    done_for="$done_for$version "
done
[ "$done_for" != " " ] || { echo "skipped: no CPython here has pip, venv and headers"; exit 77; }
echo "packages for$done_for: $checks checks"
