import pytest

from frostline.search import rungs

THREE, TWO = (1, 3, 9), (3, 9)  # rungs in epochs


def pending(scores, ended, trials, ladder):
    return rungs.pending(scores, ended, trials, ladder, 1)[1]


def test_the_rungs_leave_one_trial_of_a_bracket_at_the_top():
    assert rungs.levels(9, 1000) == [1 / 3, 1, 3, 9]


def test_no_rung_is_too_low_to_tell_anything():
    assert rungs.levels(9, 3) == [3, 9]
    assert rungs.levels(9, 0.5) == [9]


@pytest.mark.parametrize(("trials", "sizes"), [(1, [1]), (14, [14]), (20, [10, 10]), (25, [12, 13]), (40, [10] * 4)])
def test_brackets_are_of_about_one_size(trials, sizes):
    found = rungs.brackets(trials)
    assert [len(bracket) for bracket in found] == sizes
    assert [number for bracket in found for number in bracket] == list(range(trials))


def test_a_rung_is_full_before_the_best_leave_it():
    assert pending({}, set(), 4, THREE) == [0, 1, 2, 3]
    scores = {0: [(0.5,)], 1: [(0.9,)], 2: [(0.7,)]}
    assert pending(scores, set(), 4, THREE) == [3]
    scores[3] = [(0.1,)]
    assert pending(scores, set(), 4, THREE) == [1, 2]
    scores[1] = [(0.9,), (0.5,)]
    assert pending(scores, set(), 4, THREE) == [2]
    scores[2] = [(0.7,), (0.6,)]
    assert pending(scores, set(), 4, THREE) == [2]
    assert pending(scores, {2}, 4, THREE) == []


def test_who_failed_or_was_finished_at_once_takes_no_place():
    scores = {0: [(0.5,)], 2: [(0.7,)]}
    assert pending(scores, {1, 3}, 4, TWO) == [2]


def test_a_tie_is_broken_by_what_follows():
    scores = {0: [(0.5, -2.0)], 1: [(0.5, -1.0)]}
    assert pending(scores, set(), 2, TWO) == [1]


def test_a_later_bracket_is_compared_with_the_earlier_ones_which_have_lost_by_then():
    scores = {number: [(0.8,)] for number in range(10)}
    for number in (0, 1, 2, 3, 4):
        scores[number].append((0.5,))
    bracket, numbers = rungs.pending(scores, {0, 1}, 20, (0.3, 3, 9), 1)
    assert bracket == range(10, 20)
    assert numbers == list(range(10, 20))
    for number in range(10, 20):
        scores[number] = [(0.9 if number == 15 else 0.1,)]
    assert rungs.pending(scores, {0, 1}, 20, (0.3, 3, 9), 1)[1] == [15]
    scores[15].append((0.4,))  # among the best of its own bracket, but not of all
    assert rungs.pending(scores, {0, 1}, 20, (0.3, 3, 9), 1) == (range(20, 20), [])


@pytest.mark.parametrize("trials", [2, 10, 20, 64])
def test_a_whole_search_finishes_the_best_trial_and_spends_little(trials):
    levels = rungs.levels(9, 1000)
    quality = [(number * 7 % trials) / trials for number in range(trials)]
    scores, ended, epochs = {}, set(), 0.0
    while numbers := pending(scores, ended, trials, levels):
        reached = scores.setdefault(numbers[0], [])
        epochs += levels[len(reached)] - (levels[len(reached) - 1] if reached else 0)
        reached.append((quality[numbers[0]],))
        if len(reached) == len(levels):
            ended.add(numbers[0])
    assert quality.index(max(quality)) in ended
    assert epochs == pytest.approx(rungs.planned(levels, 1, trials), rel=0.35)
    assert epochs <= 9 * trials * (0.9 if trials < 10 else 0.25)
