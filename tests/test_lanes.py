"""Who computes when: at most so many at once, urgent ones first, and others not starved by them."""

import threading
import time

import pytest

from anymodal.stages.lanes import FAVOUR_S, Lanes
from anymodal.testing import FakeClock

LONG_S = 30.0


class Queue:
    """Threads that ask for a lane one after the other, while it is held; `order`: who got it, each for `spent_s`."""

    def __init__(self, lanes, clock, spent_s=0.01):
        self.lanes, self.clock, self.spent_s = lanes, clock, spent_s
        self.order, self.threads, self.most, self.now = [], [], 0, 0

    def add(self, name, urgent):
        waiting = sum(map(len, self.lanes._waiting))
        thread = threading.Thread(target=self.compute, args=(name, urgent), daemon=True)
        thread.start()
        self.threads.append(thread)
        until_s = time.monotonic() + LONG_S
        while sum(map(len, self.lanes._waiting)) == waiting:
            assert time.monotonic() < until_s, "it does not wait"
            time.sleep(0.001)

    def compute(self, name, urgent):
        with self.lanes.taken(urgent):
            self.now += 1
            self.most = max(self.most, self.now)
            self.order.append(name)
            self.clock.advance(self.spent_s)
            self.now -= 1

    def join(self):
        for thread in self.threads:
            thread.join(LONG_S)
            assert not thread.is_alive()


def test_urgent_ones_come_first_and_the_rest_in_order():
    clock = FakeClock()
    lanes = Lanes(1, clock)
    queue = Queue(lanes, clock)
    with lanes.taken():
        for name, urgent in (("window 1", False), ("window 2", False), ("answer 1", True), ("answer 2", True)):
            queue.add(name, urgent)
    queue.join()
    assert queue.order == ["answer 1", "answer 2", "window 1", "window 2"] and queue.most == 1


def test_who_is_urgent_all_the_time_gets_half():
    clock = FakeClock()
    lanes = Lanes(1, clock)
    queue = Queue(lanes, clock, FAVOUR_S)
    with lanes.taken():
        for i in range(6):
            queue.add(f"answer {i}", True)
            queue.add(f"window {i}", False)
    queue.join()
    kinds = [name.split()[0] for name in queue.order]
    assert kinds[:2] == ["answer", "window"] and abs(kinds[:8].count("answer") - 4) <= 1


def test_as_many_at_once_as_there_are_lanes():
    lanes, inside, both = Lanes(2), threading.Barrier(2), []

    def compute():
        with lanes.taken():
            both.append(inside.wait(LONG_S))

    threads = [threading.Thread(target=compute, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    assert sorted(both) == [0, 1]


def test_a_thread_goes_on_in_its_lane_and_a_failure_gives_it_back():
    lanes = Lanes(1)
    with pytest.raises(KeyError), lanes.taken():
        with lanes.taken(urgent=True):
            pass
        raise KeyError
    with lanes.taken():
        pass
    with pytest.raises(ValueError, match="0 lanes"):
        Lanes(0)
