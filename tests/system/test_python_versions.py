# SPDX-License-Identifier: MIT
"""Values between different versions of CPython, both ways."""

import unittest

from pyhelp import SOON, TestCase, main, name, other_pythons, xidata
from test_python_values import CONTAINERS, ECHO, EXACT, FLOATS, INTS, TEXTS, TIMES, bits


class Versions(TestCase):
    def exchange(self, python):
        there, back = xidata.channel(name(), capacity=1 << 20), xidata.channel(name(), capacity=1 << 20)
        child = self.child(ECHO, there.name, back.name, python=python)
        for value in INTS + TEXTS + TIMES + EXACT + CONTAINERS + [bytearray(b"x" * 9999), b"y" * 99999, Ellipsis]:
            there.send(value, SOON)
            answer = back.recv(SOON)
            self.assertIs(type(answer), type(value))
            self.assertEqual(answer, value)
        for value in FLOATS:
            there.send(value, SOON)
            self.assertEqual(bits(back.recv(SOON)), bits(value))
        loan = xidata.buffer(100000)
        with memoryview(loan) as m:
            m[:] = b"z" * 100000
        there.send(("frame", loan), SOON)
        kind, frame = back.recv(SOON)
        self.assertEqual((kind, bytes(frame)), ("frame", b"z" * 100000))
        there.close()
        self.finished(child)

    def test_each_other_version(self):
        pythons = other_pythons()
        if not pythons:
            self.skipTest("the module was built for one version alone")
        for python in pythons:
            with self.subTest(python=python):
                self.exchange(python)


if __name__ == "__main__":
    main()
