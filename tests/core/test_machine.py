"""What this machine has, and giving memory back to it."""

import gc
import weakref

from frostline.core import machine


class Node:
    """An object that refers to itself."""

    def __init__(self):
        self.me = self


def test_what_refers_to_itself_is_freed():
    gc.disable()
    try:
        gone = weakref.ref(Node())
        assert gone() is not None
        machine.give_memory_back()
        assert gone() is None
    finally:
        gc.enable()
