"""Files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from sciSR.errors import OutputExistsError
from sciSR.files import check_free, whole_file


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    with whole_file(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.parent == target.parent
    assert [file.name for file in target.parent.iterdir()] == ["a.txt"]
    assert target.stat().st_mode & 0o777 == 0o644
    with whole_file(target) as temporary:
        temporary.write_text("other")
    assert target.read_text() == "other"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    target.write_text("mine")

    def fail() -> None:
        with whole_file(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a.txt": "mine"}


def test_what_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    check_free(target, overwrite=False)
    target.write_text("mine")
    check_free(target, overwrite=True)
    with pytest.raises(OutputExistsError, match=r"a\.txt: exists already; .* \(--overwrite\)"):
        check_free(target, overwrite=False)
