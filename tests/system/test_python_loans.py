# SPDX-License-Identifier: MIT
"""What is held of shared memory, by generation: what is counted, when it is collected, and what is told of what stays."""

import gc
import os
import threading
import unittest
import warnings

from pyhelp import SOON, TestCase, main, name, numpy, xidata
from xidata import loans

MIB = 1 << 20


class World(TestCase):
    def setUp(self):
        super().setUp()
        gc.collect()
        self.assertEqual(self.held(), [0, 0, 0])
        self.threshold = loans.get_threshold()
        self.channel = xidata.channel(name(), capacity=MIB)
        self.before = loans.get_stats()

    def tearDown(self):
        loans.set_threshold(*self.threshold)
        loans.enable()
        gc.enable()
        self.channel.free()
        super().tearDown()

    def held(self):
        return [s["held"] for s in loans.get_stats()]

    def collections(self):
        return [s["collections"] - b["collections"] for s, b in zip(loans.get_stats(), self.before)]

    def collected(self):
        return [s["collected"] - b["collected"] for s, b in zip(loans.get_stats(), self.before)]

    def view(self, size=8192):
        self.channel.send(xidata.buffer(size))
        return self.channel.recv(SOON)

    def cycle(self):
        made = [self.view()]
        made.append(made)


class Counting(World):
    def test_what_is_counted(self):
        kept = self.view(3 * MIB)
        self.assertEqual(self.held(), [1, 0, 0])
        self.assertGreaterEqual(loans.get_stats()[0]["bytes"], 3 * MIB)
        part = kept[5:9]
        del kept
        self.assertEqual(self.held(), [1, 0, 0])
        del part
        self.assertEqual((self.held(), loans.get_stats()[0]["bytes"]), ([0, 0, 0], 0))
        self.channel.send([1, "text", b"bytes" * 10000])
        kept = self.channel.recv()  # copied
        self.assertEqual(self.held(), [0, 0, 0])

    def test_buffers(self):
        first, second, third = (xidata.buffer(MIB) for _ in range(3))
        self.assertEqual((self.held(), loans.get_stats()[0]["bytes"]), ([3, 0, 0], 3 * MIB))
        first.release()
        first.release()
        self.channel.send(second)
        self.assertEqual(self.held(), [1, 0, 0])
        with self.assertRaises(Exception):
            self.channel.send([third, lambda: 0])
        self.assertEqual(self.held(), [1, 0, 0])  # not sent
        third.release()
        self.channel.recv()
        self.assertEqual((self.held(), loans.get_stats()[0]["bytes"]), ([0, 0, 0], 0))

    @unittest.skipUnless(numpy, "numpy is not installed")
    def test_arrays(self):
        array = xidata.zeros((1024, 1024))
        self.assertEqual(loans.get_stats()[0]["bytes"], 8 * MIB)
        self.channel.send(array)
        back = self.channel.recv()
        self.assertEqual(self.held(), [2, 0, 0])  # an array that was sent looks at its memory still
        del array
        self.assertEqual(self.held(), [1, 0, 0])
        self.assertGreaterEqual(loans.get_stats()[0]["bytes"], 8 * MIB)
        del back
        self.assertEqual((self.held(), loans.get_stats()[0]["bytes"]), ([0, 0, 0], 0))

    def test_generations(self):
        kept = [self.view()]
        for generation, held in ((0, [0, 1, 0]), (0, [0, 1, 0]), (1, [0, 0, 1]), (2, [0, 0, 1])):
            loans.collect(generation)
            self.assertEqual(self.held(), held)
        kept.append(self.view())
        self.assertEqual(self.held(), [1, 0, 1])
        loans.collect(1)
        self.assertEqual(self.held(), [0, 0, 2])
        self.assertEqual(self.collections(), [2, 2, 1])
        kept.clear()
        self.assertEqual(self.held(), [0, 0, 0])
        self.assertEqual([s["bytes"] for s in loans.get_stats()], [0, 0, 0])

    def test_cycles_are_collected(self):
        gc.disable()
        for _ in range(5):
            self.cycle()
        kept = self.view()
        self.assertEqual(self.held(), [6, 0, 0])
        self.assertEqual(loans.collect(), 5)
        self.assertEqual((self.held(), self.collected()), ([0, 0, 1], [0, 0, 5]))

    def test_frozen(self):
        kept = [self.view(), self.view()]
        loans.collect(0)
        kept.append(self.view())
        loans.freeze()
        self.assertEqual((self.held(), loans.get_freeze_count()), ([0, 0, 0], 3))
        kept.pop()
        self.assertEqual(loans.get_freeze_count(), 2)
        loans.unfreeze()
        self.assertEqual((self.held(), loans.get_freeze_count()), ([0, 0, 2], 0))

    def test_a_forked_child_begins_with_nothing(self):
        kept = [self.view(), xidata.buffer(8192)]
        loans.freeze()
        kept.append(self.view())
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                good = self.held() == [0, 0, 0] and loans.get_freeze_count() == 0
                kept.clear()
                self.channel.send(xidata.buffer(8192))
                mine = self.channel.recv(SOON)
                code = 0 if good and self.held() == [1, 0, 0] and loans.collect() == 0 and mine else 2
            finally:
                os._exit(code)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
        self.assertEqual((self.held(), loans.get_freeze_count()), ([1, 0, 0], 2))
        kept[1].release()


class Thresholds(World):
    def test_by_number(self):
        gc.disable()
        loans.set_threshold(4, 2, 2, 0)
        kept = []
        for _ in range(40):
            kept.append(self.view())
        collections = self.collections()
        self.assertGreater(collections[0], collections[1])
        self.assertGreater(collections[1], 0)
        self.assertGreater(collections[2], 0)
        self.assertLess(self.held()[0], 6)
        self.assertEqual(sum(self.held()), 40)
        self.assertLess(loans.get_count()[0], 6)

    def test_what_comes_and_goes_is_never_collected(self):
        loans.set_threshold(4)
        for _ in range(200):
            self.view()
        self.assertEqual(self.collections(), [0, 0, 0])

    def test_by_bytes(self):
        gc.disable()
        loans.set_threshold(0, 10, 10, 4 * MIB)
        kept = [self.view(MIB) for _ in range(4)]
        self.assertEqual(self.collections(), [0, 0, 0])
        kept.append(self.view(MIB))
        self.assertEqual(self.collections(), [1, 0, 0])

    def test_cycles_do_not_pile_up(self):
        """What this is for: gc itself would not run for so few objects."""
        loans.set_threshold(8)
        most = 0
        thresholds = gc.get_threshold()
        gc.set_threshold(100000)
        try:
            for _ in range(100):
                self.cycle()
                most = max(most, sum(self.held()))
        finally:
            gc.set_threshold(*thresholds)
        self.assertLess(most, 12)
        self.assertGreater(self.collected()[0], 80)
        gc.collect()

    def test_switched_off(self):
        loans.set_threshold(2, 1, 1, 1)
        loans.disable()
        self.assertFalse(loans.isenabled())
        kept = [self.view() for _ in range(20)]
        self.assertEqual((self.collections(), len(kept)), ([0, 0, 0], 20))
        loans.enable()
        self.assertTrue(loans.isenabled())
        kept.append(self.view())
        self.assertGreater(sum(self.collections()), 0)

    def test_gc_switched_off_is_not_run(self):
        gc.disable()
        loans.set_threshold(2)
        for _ in range(10):
            self.cycle()
        self.assertEqual(sum(self.held()), 10)
        self.assertGreater(self.collections()[0], 0)
        self.assertEqual(loans.collect(), 10)

    def test_values(self):
        self.assertEqual(self.threshold, (256, 10, 10, 256 * MIB))
        loans.set_threshold(1, 2)
        self.assertEqual(loans.get_threshold(), (1, 2, 10, 256 * MIB))
        for wrong in ((-1,), (1, 2, 3, -1), (1 << 40,)):
            with self.assertRaises(ValueError):
                loans.set_threshold(*wrong)
        for wrong in (-1, 3):
            with self.assertRaises(ValueError):
                loans.collect(wrong)

    def test_from_a_finalizer(self):
        """It receives while gc runs for a collection: no other begins within."""
        gc.disable()
        loans.set_threshold(1)
        got = []

        class Receives:
            def __del__(this):
                got.extend(self.view() for _ in range(3))

        kept = Receives()
        kept.self = kept
        del kept
        loans.collect()
        self.assertEqual((len(got), self.collections()[2]), (3, 1))

    def test_threads(self):
        loans.set_threshold(3)

        def run():
            channel = xidata.channel(name(), capacity=MIB)
            kept = []
            for i in range(300):
                channel.send(xidata.buffer(5000))
                kept.append(channel.recv(SOON))
                del kept[:-5]
            channel.free()

        threads = [threading.Thread(target=run) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        gc.collect()
        self.assertEqual((self.held(), [s["bytes"] for s in loans.get_stats()]), ([0, 0, 0], [0, 0, 0]))


class Leaks(World):
    def test_told_once(self):
        kept = [self.view(MIB), self.view(MIB)]
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            loans.collect()
            self.assertEqual(found, [])
            loans.collect(1)
            kept.append(self.view())
            self.assertEqual(found, [])
            loans.collect()
            self.assertEqual([w.category for w in found], [xidata.LeakedLoanWarning])
            self.assertIn("2 loans", str(found[0].message))
            loans.collect()
            self.assertEqual(len(found), 2)  # the third, alone
            self.assertIn("1 loans", str(found[1].message))
            loans.collect()
            self.assertEqual(len(found), 2)
        self.assertEqual(len(kept), 3)

    def test_frozen_is_not_told(self):
        kept = self.view()
        loans.freeze()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(3):
                loans.collect()
        self.assertEqual(len(kept), 8192)
        loans.unfreeze()

    def test_as_an_error(self):
        kept = self.view()
        loans.collect()
        with warnings.catch_warnings():
            warnings.simplefilter("error", xidata.LeakedLoanWarning)
            with self.assertRaises(xidata.LeakedLoanWarning):
                loans.collect()
        self.assertEqual(len(kept), 8192)


if __name__ == "__main__":
    main()
