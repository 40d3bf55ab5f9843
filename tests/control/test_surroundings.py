"""The file of the surroundings is read whole or refused with the place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embodied_vision.control.guard import Guard
from embodied_vision.control.surroundings import read_surroundings
from embodied_vision.errors import BadInput
from embodied_vision.paths import PACKAGE
from tests.control.samples import MODEL, example_motion

GOOD = """
keep_out:
  - {name: camera post, position: [0.5, 0.6, 0.4], size: [0.06, 0.06, 0.8], rpy: [0, 0, 1.5707963267948966]}
  - {position: [0, 0, 1.5], size: [2, 2, 0.1]}
workspace: {x: [0.2, 0.8], y: [-0.3, 0.3], z: [0, 0.3]}
"""


def test_a_file_without_fault_is_read(tmp_path: Path) -> None:
    (tmp_path / "cell.yaml").write_text(GOOD)
    cell = read_surroundings(tmp_path / "cell.yaml")
    post, ceiling = cell.keep_out
    assert (post.name, ceiling.name) == ("camera post", "keep_out[1]")
    np.testing.assert_allclose(post.pose[:3], [[0, -1, 0, 0.5], [1, 0, 0, 0.6], [0, 0, 1, 0.4]], atol=1e-12)
    assert post.size.tolist() == [0.06, 0.06, 0.8]
    assert cell.workspace is not None
    assert cell.workspace.y == (-0.3, 0.3)


def test_the_shipped_example_is_read_and_leaves_the_arm_room() -> None:
    cell = read_surroundings(PACKAGE.parent / "config" / "surroundings.example.yaml")
    assert [box.name for box in cell.keep_out] == ["camera post", "wall"]
    Guard(MODEL, cell.workspace, keep_out=cell.keep_out).check_motion(example_motion(), MODEL.home, 0, 0)


def test_without_a_file_there_is_nothing_around() -> None:
    cell = read_surroundings("")
    assert cell.keep_out == ()
    assert cell.workspace is None


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("size: [2, 2, 0.1]", "size: [2, 2]", "keep_out[1].size"),
        ("size: [2, 2, 0.1]", "size: [2, 2, -0.1]", "keep_out[1]"),
        ("size: [2, 2, 0.1]", "size: [2, 2, .inf]", "keep_out[1].size"),
        ("size: [2, 2, 0.1]", "sizes: [2, 2, 0.1]", "sizes"),
        ("position: [0, 0, 1.5]", "position: [0, 0, .nan]", "keep_out[1].position"),
        ("position: [0, 0, 1.5]", "position: [0, 0, yes]", "keep_out[1].position"),
        ("{position: [0, 0, 1.5],", "{name: camera post, position: [0, 0, 1.5],", "name of its own"),
        ("rpy: [0, 0, 1.5707963267948966]", "rpy: north", "keep_out[0].rpy"),
        ("x: [0.2, 0.8]", "x: [0.8, 0.2]", "workspace.x"),
        ("x: [0.2, 0.8]", "w: [0.2, 0.8]", "workspace"),
        ("keep_out:", "keepout:", "keepout"),
        ("  - {name", "  {name", "no YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, old: str, new: str, place: str) -> None:
    assert old in GOOD
    (tmp_path / "cell.yaml").write_text(GOOD.replace(old, new))
    with pytest.raises(BadInput, match=r"cell\.yaml|keep-out") as error:
        read_surroundings(tmp_path / "cell.yaml")
    assert place in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="keep_out"):
        read_surroundings(tmp_path / "none.yaml")
