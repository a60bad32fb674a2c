"""A file is replaced as a whole or not at all."""

from __future__ import annotations

import pytest

from ureca_lib.regions.writing import replacing


def test_the_file_takes_the_old_ones_place_at_the_end(tmp_path):
    path = tmp_path / "new" / "x.txt"
    with replacing(path) as file:
        file.write("größe\n")
        assert not path.exists()
    assert path.read_bytes() == "größe\n".encode()
    with replacing(str(path)) as file:
        file.write("second")
        assert path.read_text(encoding="utf-8") == "größe\n"
    assert path.read_text() == "second"
    assert [entry.name for entry in path.parent.iterdir()] == ["x.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as file:
        file.write("half")
        file.flush()
        raise error
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.txt"]


def test_text_that_no_file_holds_leaves_no_trace(tmp_path):
    with pytest.raises(UnicodeEncodeError), replacing(tmp_path / "x.txt") as file:
        file.write("\ud800")
    assert list(tmp_path.iterdir()) == []
