"""What a user types leads to one checkpoint folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from embodied_vision.errors import BadInput
from embodied_vision.policies.locate import locate


def test_a_pointer_is_followed_at_once(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    current = tmp_path / "current"
    current.symlink_to("old")
    found = locate(current)
    current.unlink()
    current.symlink_to("new")
    assert found == tmp_path / "old"
    assert locate(current) == tmp_path / "new"


def test_a_path_that_is_missing_is_left_to_the_reader(tmp_path: Path) -> None:
    assert locate(str(tmp_path / "nowhere")) == tmp_path / "nowhere"


def test_a_name_that_does_not_ship_is_refused() -> None:
    with pytest.raises(BadInput, match="no-such-task"):
        locate("no-such-task")
