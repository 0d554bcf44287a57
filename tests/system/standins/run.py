# SPDX-License-Identifier: MIT
"""
Runs CPython's own tests of subinterpreters (3.13, 3.14), as they are installed, on xidata. `run.py MODULE [PATTERN...]`

What is left out is named here, with the reason; a name that is no test is an error, so that the list stays true.
"""

import sys
import unittest

from test import support
from test.support import script_helper

EXCEPTIONS = {
    "test_queues": {},
    "test_lifecycle": {},
    "test_api": {
        "TestInterpreterExec.test_fork": "expects os.fork() to be refused in an interpreter; a process may fork",
    },
}
if sys.version_info >= (3, 14):
    EXCEPTIONS["test_api"]["InterpreterObjectTests.test_cleanup_in_repl"] = (
        "expects to be told of an interpreter that was not closed; here it ends with the program"
    )
CAPI = "makes an interpreter with the C API, inside this process"


class NoCapi:
    """In place of _testinternalcapi: whatever asks for it is a test that makes interpreters with the C API, or compares code."""

    def __init__(self, real):
        if hasattr(real, "get_code_var_counts"):
            self.get_code_var_counts = real.get_code_var_counts

    def __getattr__(self, name):
        raise unittest.SkipTest(CAPI)


def without_capi(*_, **__):
    raise unittest.SkipTest(CAPI)


class Result(unittest.TextTestResult):
    subtests = 0

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        self.subtests += 1


def flatten(suite):
    for one in suite:
        yield from flatten(one) if isinstance(one, unittest.TestSuite) else [one]


def main(name, *patterns):
    support.use_resources = []
    script_helper.interpreter_requires_environment = lambda: True  # scripts of tests are to find the stand-ins: no -I, no -E
    import _interpreters

    assert _interpreters.__file__.endswith("low_interpreters.py"), _interpreters
    from test.test_interpreters import utils

    utils._testinternalcapi = utils._testcapi = NoCapi(utils._testinternalcapi)
    for method in ("interpreter_from_capi", "interpreter_obj_from_capi", "run_from_capi", "running_from_capi",
                   "run_temp_from_capi"):
        setattr(utils.TestBase, method, without_capi)
    module = __import__("test.test_interpreters.%s" % name, fromlist=["x"])
    tests = {t.id().partition(name + ".")[2]: t for t in flatten(unittest.defaultTestLoader.loadTestsFromModule(module))}
    left_out = EXCEPTIONS[name]
    assert set(left_out) <= set(tests), set(left_out) - set(tests)
    chosen = [t for n, t in tests.items() if n not in left_out and (not patterns or any(p in n for p in patterns))]
    result = unittest.TextTestRunner(verbosity=2 if patterns else 1, resultclass=Result).run(unittest.TestSuite(chosen))
    reasons = {}
    for test, reason in result.skipped:
        reasons[reason] = reasons.get(reason, 0) + 1
    print("%s: %d tests, %d passed, %d failed; skipped wholly or in part %s; left out %s" % (
        name, result.testsRun, result.testsRun - len({t.id() for t, _ in result.failures + result.errors}),
        len(result.failures) + len(result.errors), reasons or "none", left_out or "none"))
    return not result.wasSuccessful()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
