# SPDX-License-Identifier: MIT
"""
What there is to see without joining anything: namespaces, and with them interpreters and channels. `python -m xidata`
prints it, as tables for people or as JSON for programs.
"""

import argparse
import json
import os
import re
import sys
import types

import xidata

_REGISTRY = re.compile(r"xi\.(\d+)\.(.+)\.registry\Z")


def _sockets():
    """The folder of the control sockets; a namespace of sealed memory has its name there alone."""
    folder = os.environ.get("XI_RUNTIME_DIR")
    if folder:
        return folder
    user = os.environ.get("XDG_RUNTIME_DIR")
    if user and os.access(user, os.W_OK | os.X_OK):
        return os.path.join(user, "xidata")
    return "/tmp/xidata-%d" % os.getuid()


def _listed(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []


def namespaces():
    """
    The names of this user's namespaces, sorted.

        >>> me = xidata.join()
        >>> [len(xidata.list_interpreters(ns)) > 0 for ns in xidata.namespaces() if ns == me.namespace]
        [True]
    """
    found = [_REGISTRY.match(name) for name in _listed("/dev/shm")]
    names = {m[2] for m in found if m and int(m[1]) == os.getuid()}
    # A broker that was killed leaves its socket: what cannot be looked at is no namespace.
    for name in [n[:-5] for n in _listed(_sockets()) if n.endswith(".sock")]:
        if name not in names and _seen(name):
            names.add(name)
    return sorted(names)


def _seen(ns):
    try:
        return bool(xidata.list_interpreters(ns) or xidata.channels(ns))
    except xidata.Error:
        return False


def stats():
    """
    The counters of the current interpreter, its id and its namespace, as a dict; an empty one if this process has not
    joined. Nothing is asked of anybody: it may be called as often as one likes.

        >>> me = xidata.join()
        >>> sorted(set(xidata.stats()) & {"id", "namespace", "parks"})
        ['id', 'namespace', 'parks']
    """
    me = xidata.current()
    return dict(me.stats(), id=me.id, namespace=me.namespace) if me else {}


# ---- python -m xidata

_INTERPRETERS = ("id", "pid", "name", "language", "references", "sent", "received", "blocks", "borrows", "arena_bytes")
_CHANNELS = ("name", "mode", "depth", "groups", "producers", "consumers", "waiting", "sent", "received", "used", "capacity")


def _as_dict(info):
    """A struct sequence, by the names of its fields."""
    fields = [name for name, member in vars(type(info)).items() if isinstance(member, types.MemberDescriptorType)]
    return {name: getattr(info, name) for name in fields}


def _table(fields, rows):
    cells = [[f.upper() for f in fields]] + [[_shown(r[f]) for f in fields] for r in rows]
    widths = [max(len(c[i]) for c in cells) for i in range(len(fields))]
    numeric = [all(isinstance(r[f], int) for r in rows) for f in fields]
    for row in cells:
        yield "  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric)).rstrip()


def _shown(value):
    """As text that stays on its line, whatever another process called itself."""
    return "".join(c if c.isprintable() else "?" for c in str(value))


def _sample(ns):
    return {
        "namespace": ns,
        "interpreters": [_as_dict(i) for i in sorted(xidata.list_interpreters(ns), key=lambda i: i.id)],
        "channels": [_as_dict(c) for c in sorted(xidata.channels(ns), key=lambda c: c.name)],
    }


def _print(sample):
    print("namespace %s" % sample["namespace"])
    for fields, rows in ((_INTERPRETERS, sample["interpreters"]), (_CHANNELS, sample["channels"])):
        print()
        for line in _table(fields, rows):
            print("  " + line)


def main(argv=None):
    """Shows the namespaces; the status to exit with."""
    parser = argparse.ArgumentParser(
        prog="python -m xidata", description="Shows namespaces, their interpreters and channels, without joining any.")
    parser.add_argument("-n", "--ns", action="append", help="this namespace (may be given again); default: all of this user's")
    parser.add_argument("--json", action="store_true", help="one JSON object a namespace and line, with everything there is")
    parser.add_argument("--version", action="version", version="xidata " + xidata.__version__)
    options = parser.parse_args(argv)
    there = namespaces()
    status = 0
    for n, ns in enumerate(there if options.ns is None else options.ns):
        try:
            if "/" not in ns and ns not in there:
                raise LookupError("there is no namespace %r; there are: %s" % (ns, ", ".join(there) or "none"))
            sample = _sample(ns)
        except (xidata.Error, LookupError) as error:
            print("xidata: %s" % error, file=sys.stderr)
            status = 1
            continue
        if options.json:
            print(json.dumps(sample))
        else:
            if n:
                print()
            _print(sample)
    if not there and options.ns is None and not options.json:
        print("no namespace: nobody of this user has joined one")
    return status
