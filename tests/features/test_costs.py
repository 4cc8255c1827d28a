"""Which place is cheapest to store by given costs."""

from frostline.features import costs
from frostline.features.costs import Costs, Place, Work
from frostline.features.measurements import Speed

FAST = Speed(write=1e-9, read=1e-10, cold=1e-9)


def choose(places, work, segments, speed=FAST, room=1e12, must_store=False):
    there = {number: Place(*place) for number, place in enumerate(places)}
    return costs.cheapest(len(places) - 1, there, work, Costs(segments, speed, 1e12), room, must_store)


TEN_EPOCHS = Work(draws=1000, rows=100)


def test_what_is_drawn_often_is_stored_at_the_line():
    assert choose([(5000, 0)], TEN_EPOCHS, (0.01,)) == 0


def test_what_is_drawn_once_is_stored_only_where_that_costs_next_to_nothing():
    once = Work(draws=100, rows=100)
    assert choose([(5000, 0)], once, (0.01,)) == 0
    assert choose([(500_000, 0)], once, (0.0001,)) is None


def test_a_small_shallow_place_beats_a_large_one_whose_rest_is_quick():
    places = [(40_000, 0), (4_000_000, 0)]
    assert choose(places, TEN_EPOCHS, (0.01, 0.0001)) == 0
    assert choose(places, TEN_EPOCHS, (0.01, 0.01)) == 1


def test_what_is_there_counts():
    places = [(40_000, 100), (4_000_000, 0)]
    assert choose(places, Work(100, 100), (0.01, 0.0001)) == 0
    places = [(40_000, 0), (4_000_000, 100)]
    assert choose(places, TEN_EPOCHS, (0.01, 0.0005)) == 1


def test_reading_slower_than_computing_is_left_alone_unless_it_must_be():
    slow = Speed(write=1e-6, read=1e-6, cold=1e-6)
    assert choose([(500_000, 0)], TEN_EPOCHS, (0.001,), slow) is None
    assert choose([(500_000, 0)], TEN_EPOCHS, (0.001,), slow, must_store=True) == 0


def test_only_what_has_room_is_stored():
    places = [(40_000, 0), (60_000, 0)]
    assert choose(places, TEN_EPOCHS, (0.01, 0.01), room=7e6) == 1
    assert choose(places, TEN_EPOCHS, (0.01, 0.01), room=5e6) == 0
    assert choose(places, TEN_EPOCHS, (0.01, 0.01), room=3e6) is None
    assert choose(places, TEN_EPOCHS, (0.01, 0.01), room=3e6, must_store=True) is None


def test_more_than_memory_holds_is_read_from_the_disk_each_time():
    given = Costs((1.0,), FAST, memory=1e6)
    assert given.read(1000, 100) == 1000 * FAST.read
    assert given.read(1000, 1000) == 1000 * FAST.cold
