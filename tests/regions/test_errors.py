"""Every error names its file, its region and its reason, and survives copying."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from ureca_lib import regions
from ureca_lib.regions import FileMissingError, RegionError

KINDS = [
    value
    for value in vars(regions).values()
    if isinstance(value, type) and issubclass(value, Exception)
]


def test_there_is_a_type_for_each_kind_of_bad_input():
    assert len(KINDS) == 6
    assert all(issubclass(kind, RegionError) and issubclass(kind, ValueError) for kind in KINDS)
    assert issubclass(FileMissingError, FileNotFoundError)


@pytest.mark.parametrize("kind", KINDS)
def test_the_message_names_file_region_and_reason(kind):
    error = kind("the reason", Path("folder/sa_1.json"), 523353737)
    assert str(error) == "folder/sa_1.json: region 523353737: the reason"
    assert (error.file, error.region_id) == ("folder/sa_1.json", 523353737)
    assert str(kind("the reason")) == "the reason"
    assert str(kind("the reason", region_id=0)) == "region 0: the reason"


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_is_filled_in_once(kind):
    error = kind("the reason", None, 0).located("a.json", 5)
    assert type(error) is kind
    assert (error.reason, error.file, error.region_id) == ("the reason", "a.json", 0)
    assert error.located("b.json", 9).file == "a.json"
    assert str(kind("the reason").located(None)) == "the reason"


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_copying_to_another_process(kind):
    again = copy.deepcopy(kind("the reason", "a.json", "x"))
    assert type(again) is kind
    assert str(again) == "a.json: region x: the reason"
    assert (again.reason, again.file, again.region_id) == ("the reason", "a.json", "x")
