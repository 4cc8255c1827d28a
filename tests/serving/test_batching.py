"""How images are gathered for the network: here a function of NumPy, so that the test knows each batch."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from frostline.serving import batching

IMAGE = np.full((2, 2, 3), 7, np.uint8)


class Network:
    """Gives the sum of each image. It begins a batch only when it is let."""

    def __init__(self):
        self.sizes, self.may_begin = [], threading.Event()
        self.may_begin.set()

    def __call__(self, pixels):
        self.may_begin.wait(10)
        self.sizes.append(len(pixels))
        return pixels.reshape(len(pixels), -1).sum(axis=1, keepdims=True).astype(np.float32)


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def line(network):
    line = batching._Line(4)
    thread = threading.Thread(target=line.work, args=(network,))
    thread.start()
    yield line
    line.end()
    thread.join(10)
    assert not thread.is_alive()


def test_what_waits_goes_through_the_network_together_and_in_order(line, network):
    seen = []
    line.observe = seen.append
    network.may_begin.clear()
    first = line.ask(IMAGE)
    while line.waiting():
        time.sleep(0.001)
    others = [line.ask(np.full_like(IMAGE, number)) for number in range(9)]
    assert line.waiting() == 9
    network.may_begin.set()
    assert [each.result(10)[0] for each in (first, *others)] == [84, *(12 * number for number in range(9))]
    assert network.sizes == seen == [1, 4, 4, 1]


def test_an_image_waits_for_those_that_are_being_decoded_and_not_for_long(line, network, monkeypatch):
    monkeypatch.setattr(batching, "PATIENCE", 10.0)
    line.ask(IMAGE).result(5)  # nothing else is coming, so it does not wait
    line.count(3)
    answers = [line.ask(IMAGE)]
    for _ in range(3):
        time.sleep(0.02)
        line.count(-1)
        answers.append(line.ask(IMAGE))
    assert [each.result(5)[0] for each in answers] == [84] * 4
    assert network.sizes == [1, 4]
    monkeypatch.setattr(batching, "PATIENCE", 0.05)
    line.count(1)  # this one never comes, as if it was no image
    started = time.monotonic()
    line.ask(IMAGE).result(5)
    assert 0.05 <= time.monotonic() - started < 5
    line.count(-1)


def test_many_threads_get_their_own_answers_and_an_error_is_that_of_its_batch(line, network):
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda number: line.ask(np.full_like(IMAGE, number % 250)).result(10)[0], range(400))
        assert list(answers) == [12 * (number % 250) for number in range(400)]
    assert sum(network.sizes) == 400
    network.may_begin.clear()
    line.ask(IMAGE)
    failing = [line.ask(IMAGE), line.ask(IMAGE[:1])]
    network.may_begin.set()
    for each in failing:
        with pytest.raises(ValueError, match="all input arrays must have the same shape"):
            each.result(10)
    assert line.ask(IMAGE).result(10)[0] == 84
