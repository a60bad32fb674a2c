"""The pace at which all threads ask a server that limits its rate."""

from __future__ import annotations

import pytest

from ureca_lib.annotate import pace
from ureca_lib.annotate.pace import Pace


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """One number: the time, which stands still."""
    now = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    return now


def turns(one: Pace, count: int) -> list[float]:
    return [one.turn(1000.0).wait for _ in range(count)]


def test_nobody_waits_until_a_call_is_refused(clock):
    one = Pace(1.0, 60.0)
    assert turns(one, 3) == [0, 0, 0]
    one.slow(100.0)
    assert turns(one, 3) == [1, 2, 3]
    clock[0] = 110.0
    assert turns(one, 2) == [0, 1]


def test_calls_of_one_pace_slow_it_down_once_and_those_of_the_next_again(clock):
    one = Pace(1.0, 3.0)
    taken = [one.turn(1000.0).taken for _ in range(8)]
    clock[0] = 101.0
    for when in taken:
        one.slow(when)
    assert turns(one, 2) == [1, 2]
    clock[0] = 103.0
    one.slow(101.0)
    assert turns(one, 2) == [2, 4]
    clock[0] = 120.0
    one.slow(110.0)
    assert turns(one, 2) == [3, 6]  # the longest gap


def test_a_wait_that_the_server_asks_for_holds_for_all(clock):
    one = Pace(1.0, 60.0)
    one.slow(100.0, 30.0)
    assert turns(one, 2) == [30, 31]


def test_a_turn_that_comes_too_late_is_not_taken(clock):
    one = Pace(1.0, 60.0)
    one.slow(100.0, 30.0)
    assert one.turn(29.0) == (100.0, 30.0, 30.0)
    assert turns(one, 1) == [30]


def test_turns_behind_others_are_no_reason_to_give_up(clock):
    one = Pace(20.0, 60.0)
    one.slow(100.0)
    assert [one.turn(20.0) for _ in range(3)] == [(100, 20, 20), (100, 40, 20), (100, 60, 20)]
    clock[0] = 130.0
    assert one.turn(0.0) == (130, 50, 0)


def test_replies_make_it_faster_until_there_is_no_gap(clock):
    one = Pace(1.0, 60.0)
    one.slow(100.0)
    one.slow(100.0)
    clock[0] = 200.0
    for _ in range(3):
        one.ease()
    assert turns(one, 2) == pytest.approx([0, 2 * 0.9**3])
    for _ in range(20):
        one.ease()
    clock[0] = 300.0
    assert turns(one, 3) == [0, 0, 0]
