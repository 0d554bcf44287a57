# SPDX-License-Identifier: MIT
"""
Functions that go by their code: those without closure and defaults that use no name of the module that they come from.
Called elsewhere, or sent where no pickle can be made of them (a lambda, a function within another), they belong to the
__main__ that they come to.
"""

import marshal
import sys
import types


def code_of(function):
    """The code of a function that can run elsewhere as it is, marshalled; None of everything else."""
    if type(function) is not types.FunctionType or function.__closure__ or function.__defaults__ or function.__kwdefaults__:
        return None
    if _uses_globals(function.__code__, function.__globals__):
        return None
    return marshal.dumps(function.__code__)


_GLOBAL_NAMES = {verb + "_" + kind for verb in ("LOAD", "STORE", "DELETE") for kind in ("GLOBAL", "NAME")}


def _uses_globals(code, names):
    """True if the code, or one within it, loads or stores a name of the module that it comes from."""
    suspects = [n for n in code.co_names if n in names]
    if suspects:
        import dis  # attributes are in co_names, too: only the instructions tell

        if any(i.argval in suspects and i.opname in _GLOBAL_NAMES for i in dis.get_instructions(code)):
            return True
    return any(_uses_globals(c, names) for c in code.co_consts if type(c) is types.CodeType)


class _Code:
    """Stands for such a function until it is pickled; what is received is the function."""

    __slots__ = ("_code",)

    def __init__(self, code):
        self._code = code

    def __reduce__(self):
        return made, (self._code,)


def made(code):
    return types.FunctionType(marshal.loads(code), sys.modules["__main__"].__dict__)


def by_code(value):
    """The value with such functions in it, in tuples and dicts as well, ready to go by their code; itself if there are none."""
    kind = type(value)
    if kind is types.FunctionType:
        code = code_of(value)
        return value if code is None else _Code(code)
    if kind is tuple:
        items = tuple([by_code(item) for item in value])
        return items if any(a is not b for a, b in zip(items, value)) else value
    if kind is dict:
        items = {key: by_code(item) for key, item in value.items()}
        return items if any(items[key] is not value[key] for key in value) else value
    return value
