# SPDX-License-Identifier: MIT
"""
Builds the wheel and the source archive of xidata for pip (PEP 517): `pip install .`, `pip wheel .`.

A wheel holds one CPython's extension module with libxidata inside, the package's Python files, xi-broker beside them,
where the library looks for it first, and the commands xi and xi-broker. CMake builds these as it does everywhere else;
this file packs them. It needs nothing but the standard library, so it works where no package index can be reached,
with and without build isolation.

Settings (pip's --config-settings, or -C): build-dir=FOLDER keeps what was built, for the next time. abi3=yes makes the
wheel for the stable ABI, which CPython 3.11 and every later one takes, and which is slower. The environment's CC, CFLAGS, CMAKE_GENERATOR,
CMAKE_C_COMPILER_LAUNCHER and SOURCE_DATE_EPOCH count, the last as the time of each file.
"""

import base64
import gzip
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))))
# What a source archive holds, apart from what a build leaves.
SOURCES = ("CMakeLists.txt", "CMakePresets.json", "LICENSE", "README.md", "pyproject.toml", "demo", "test",
           "bench", "broker", "docs", "libxi", "tests")
LEFT_OUT = re.compile(r"(^|/)(__pycache__|\.[^/]*|report\.(html|json|json\.part|txt))(/|$)|\.pyc$|\.o$")
ABI3 = (3, 11)  # the first whose limited API has buffers
LICENSES = ("LICENSE", "libxi/bindings/python/wheel/LICENSE.liburing")


def _version():
    with open(os.path.join(ROOT, "CMakeLists.txt"), encoding="utf-8") as f:
        return re.search(r"project\(xidata VERSION ([\d.]+)", f.read()).group(1)


def _metadata():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        readme = f.read()
    lines = [
        "Metadata-Version: 2.1",
        "Name: xidata",
        "Version: " + _version(),
        "Summary: Hands values between interpreter processes on one Linux host through shared memory",
        "License: MIT",
        "Keywords: shared memory,ipc,interprocess,queue,multiprocessing,subinterpreters",
        "Classifier: License :: OSI Approved :: MIT License",
        "Classifier: Operating System :: POSIX :: Linux",
        "Classifier: Programming Language :: C",
        "Classifier: Programming Language :: Python :: 3",
        "Classifier: Programming Language :: Python :: Implementation :: CPython",
        "Classifier: Topic :: System :: Distributed Computing",
        "Classifier: Typing :: Typed",
        "Requires-Python: >=3.9",
        "Description-Content-Type: text/markdown",
    ]
    lines += ["License-File: " + os.path.basename(path) for path in LICENSES]
    return "\n".join(lines) + "\n\n" + readme


def _abi3(settings):
    said = (settings or {}).get("abi3", "no")
    if said not in ("yes", "no"):
        raise SystemExit("the setting abi3 is yes or no, not %s" % said)
    return said == "yes"


def _tag(abi3):
    cpython = "cp%d%d" % sys.version_info[:2]
    platform = re.sub(r"[-.]", "_", sysconfig.get_platform())
    if abi3:
        return "cp%d%d-abi3-%s" % (ABI3 + (platform,))
    return "%s-%s%s-%s" % (cpython, cpython, sys.abiflags.replace("d", ""), platform)


def _mtime(path=None):
    told = os.environ.get("SOURCE_DATE_EPOCH")
    return int(told) if told else int(os.stat(path).st_mtime if path else time.time())


# ---- building


def _check(abi3):
    if sys.implementation.name != "cpython" or not sys.platform.startswith("linux"):
        raise SystemExit("xidata is for CPython on Linux")
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        raise SystemExit("no Python.h for %s: install its headers (Debian: apt-get install python3-dev)" % sys.executable)
    if abi3 and (sys.version_info < ABI3 or "t" in sys.abiflags):
        raise SystemExit("a wheel for the stable ABI is built with CPython %d.%d or later, and one that has a GIL" % ABI3)
    missing = [tool for tool in ("cmake", "pkg-config") if not shutil.which(tool)]
    if missing:
        raise SystemExit("please install %s (Debian: apt-get install gcc cmake ninja-build pkg-config liburing-dev)"
                         % " and ".join(missing))


def _build(folder, abi3):
    """Builds in the folder; returns where the package and where the programs are."""
    _check(abi3)
    configure = [
        "cmake", "-S", ROOT, "-B", folder, "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_C_FLAGS_RELEASE=-O2",
        "-DCMAKE_MODULE_LINKER_FLAGS_RELEASE=-s", "-DCMAKE_EXE_LINKER_FLAGS_RELEASE=-s",
        "-DXI_TESTS=OFF", "-DXI_BENCH=OFF", "-DXI_STATIC_URING=ON", "-DXI_PYTHONS=" + sys.executable,
        "-DXI_ABI3=" + ("ON" if abi3 else "OFF"),
    ]
    if shutil.which("ninja") and "CMAKE_GENERATOR" not in os.environ:
        configure += ["-G", "Ninja"]
    jobs = str(len(os.sched_getaffinity(0)))
    for command in (configure, ["cmake", "--build", folder, "-j", jobs, "--target", "xi_python", "xi", "xi-broker"]):
        done = subprocess.run(command, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise SystemExit("%s failed with status %d" % (" ".join(command), done.returncode))
    return os.path.join(folder, "python", "xidata"), os.path.join(folder, "bin")


# ---- a wheel: a zip file with a list of what is in it


class _Wheel:
    def __init__(self, path):
        self.zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
        self.date = max(time.gmtime(_mtime())[:6], (1980, 1, 1, 0, 0, 0))
        self.record = []

    def add(self, name, data, mode=0o644):
        entry = zipfile.ZipInfo(name, self.date)
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = (0o100000 | mode) << 16
        self.zip.writestr(entry, data)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode("ascii")
        self.record.append("%s,sha256=%s,%d" % (name, digest, len(data)))

    def add_file(self, name, path, mode=0o644):
        with open(path, "rb") as f:
            self.add(name, f.read(), mode)

    def close(self, record):
        lines = self.record + [record + ",,", ""]
        self.add(record, "\n".join(lines).encode("utf-8"))
        self.zip.close()


def _info_files(abi3):
    yield "METADATA", _metadata().encode("utf-8")
    yield "WHEEL", ("Wheel-Version: 1.0\nGenerator: xidata_build\nRoot-Is-Purelib: false\nTag: %s\n"
                    % _tag(abi3)).encode("ascii")
    for path in LICENSES:
        with open(os.path.join(ROOT, path), "rb") as f:
            yield os.path.basename(path), f.read()


def _pack(path, abi3, package, programs):
    info = "xidata-%s.dist-info/" % _version()
    scripts = "xidata-%s.data/scripts/" % _version()
    extension = "_xidata" + (".abi3.so" if abi3 else sysconfig.get_config_var("EXT_SUFFIX"))
    wheel = _Wheel(path)
    for name in sorted(os.listdir(package)):
        if name == extension:
            wheel.add_file("xidata/" + name, os.path.join(package, name), 0o755)
        elif name.endswith((".py", ".pyi", ".typed")):
            wheel.add_file("xidata/" + name, os.path.join(package, name))
    # Beside the extension, so that the library finds it wherever pip puts the commands (--target, --user).
    wheel.add_file("xidata/xi-broker", os.path.join(programs, "xi-broker"), 0o755)
    for name in ("xi", "xi-broker"):
        wheel.add_file(scripts + name, os.path.join(programs, name), 0o755)
    for name, data in _info_files(abi3):
        wheel.add(info + name, data)
    wheel.close(info + "RECORD")


# ---- what pip calls


def get_requires_for_build_wheel(config_settings=None):
    return []


def get_requires_for_build_sdist(config_settings=None):
    return []


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    name = "xidata-%s.dist-info" % _version()
    folder = os.path.join(metadata_directory, name)
    os.makedirs(folder, exist_ok=True)
    for file, data in _info_files(_abi3(config_settings)):
        with open(os.path.join(folder, file), "wb") as f:
            f.write(data)
    return name


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    abi3 = _abi3(config_settings)
    name = "xidata-%s-%s.whl" % (_version(), _tag(abi3))
    kept = (config_settings or {}).get("build-dir")
    if kept:
        _pack(os.path.join(wheel_directory, name), abi3, *_build(os.path.abspath(kept), abi3))
    else:
        with tempfile.TemporaryDirectory(prefix="xidata-build-") as folder:
            _pack(os.path.join(wheel_directory, name), abi3, *_build(folder, abi3))
    return name


def _source_files():
    for top in SOURCES:
        path = os.path.join(ROOT, top)
        if os.path.isfile(path):
            yield top
        for folder, folders, files in os.walk(path):
            inside = os.path.relpath(folder, ROOT)
            folders[:] = sorted(f for f in folders if not LEFT_OUT.search(f))
            for file in sorted(files):
                if not LEFT_OUT.search(file):
                    yield os.path.join(inside, file)


def build_sdist(sdist_directory, config_settings=None):
    stem = "xidata-" + _version()

    def add(archive, name, path=None, data=None):
        entry = tarfile.TarInfo(stem + "/" + name)
        entry.mtime = _mtime(path)
        if path:
            with open(path, "rb") as f:
                data = f.read()
            entry.mode = 0o755 if os.access(path, os.X_OK) else 0o644
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))

    with open(os.path.join(sdist_directory, stem + ".tar.gz"), "wb") as raw, \
            gzip.GzipFile("", "wb", fileobj=raw, mtime=_mtime()) as zipped, \
            tarfile.open(mode="w", fileobj=zipped, format=tarfile.PAX_FORMAT) as archive:
        add(archive, "PKG-INFO", data=_metadata().encode("utf-8"))
        for name in _source_files():
            add(archive, name, os.path.join(ROOT, name))
    return stem + ".tar.gz"
