"""Every kind of trained head comes back from its folder as it was, or is refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from embodied_vision.errors import CheckpointError
from embodied_vision.learning.calibrated import Calibration
from embodied_vision.learning.outcomes import Classifier
from embodied_vision.learning.outcomes_network import OutcomeNetwork
from embodied_vision.paths import shipped
from embodied_vision.policies import folder as folders
from embodied_vision.policies.checkpoint import Checkpoint
from embodied_vision.policies.grasp_checkpoint import GraspCheckpoint
from embodied_vision.policies.trained_head import TrainedHead
from embodied_vision.types import Workspace
from policies import grasp_world
from policies.stubs import TINY, random_checkpoint

Head = TrainedHead[Any]


def classifier(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    weights = OutcomeNetwork(4).state_dict()
    calibration = Calibration(1.5, -0.25, 40)
    return Classifier("stacking", "stub-1", Workspace(), 4, calibration, 0.9, weights=weights)


MAKE: dict[str, Callable[[int], Head]] = {
    "policy": lambda seed: random_checkpoint(seed=seed, config=TINY),
    "grasps": lambda seed: grasp_world.random_checkpoint(seed),
    "outcomes": classifier,
}
"""An untrained head of each kind from a seed."""


@pytest.fixture(params=sorted(MAKE))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def head(kind: str) -> Head:
    return replace(MAKE[kind](3), training={"seed": 3, "episodes": ["a", "b"]})


@pytest.fixture
def folder(head: Head, tmp_path: Path) -> Path:
    assert head.save(tmp_path / "head") == head.checkpoint_id
    return tmp_path / "head"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / folders.MANIFEST
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def test_it_comes_back_as_it_was(head: Head, folder: Path, tmp_path: Path) -> None:
    found = type(head).load(folder)
    assert found.settings() == head.settings()
    assert (found.checkpoint_id, found.training, found.measured) == (head.checkpoint_id, head.training, {})
    state = found.network().state_dict()
    assert all(torch.equal(state[name], value) for name, value in head.weights.items())
    found.save(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(folder)


@pytest.mark.parametrize(
    ("name", "of"),
    [("block-insertion", Checkpoint), ("place-red-in-green", Checkpoint), ("grasp-diverse", GraspCheckpoint)],
)
def test_a_shipped_one_is_written_again_byte_for_byte(name: str, of: type[Head], tmp_path: Path) -> None:
    of.load(shipped(name)).save(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(shipped(name))


def test_measuring_does_not_change_its_id_and_anything_else_does(head: Head, kind: str) -> None:
    assert replace(head, measured={"test": 1}, training={}).checkpoint_id == head.checkpoint_id
    others = [replace(head, task="another"), replace(head, encoder_id="another"), MAKE[kind](4)]
    others.append(replace(head, workspace=Workspace(cell=0.005)))
    assert len({other.checkpoint_id for other in [head, *others]}) == 5


@pytest.mark.parametrize("name", [folders.WEIGHTS, folders.CARD])
def test_a_flipped_bit_is_found(head: Head, folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=f"{name} is damaged"):
        type(head).load(folder)


@pytest.mark.parametrize("name", [folders.WEIGHTS, folders.CARD, folders.MANIFEST])
@pytest.mark.parametrize("kept", [0, 100])
def test_a_file_cut_short_is_refused(head: Head, folder: Path, name: str, kept: int) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=rf"{folder}/{name} (is damaged|is not valid JSON)"):
        type(head).load(folder)


def test_an_edited_setting_is_found(head: Head, folder: Path) -> None:
    edit(folder, lambda manifest: manifest["workspace"].update(cell=0.005))
    with pytest.raises(CheckpointError, match=f"was changed.*{head.checkpoint_id}; copy the {head.what} again"):
        type(head).load(folder)


def test_a_manifest_that_lacks_something_is_refused(head: Head, folder: Path) -> None:
    whole = json.loads((folder / folders.MANIFEST).read_text(encoding="utf-8"))
    for name in [*head.settings(), head.id_name, "training", "measured", "sha256"]:
        edit(folder, lambda manifest, name=name: manifest.pop(name))
        with pytest.raises(CheckpointError, match=str(folder)):
            type(head).load(folder)
        edit(folder, lambda manifest: manifest.update(whole))


@pytest.mark.parametrize("value", [None, [], {}, "text", 3])
def test_a_setting_of_another_type_is_refused(head: Head, folder: Path, value: object) -> None:
    settings = head.settings()
    for name in settings.keys() - {"format"}:
        if settings[name] != value:
            edit(folder, lambda manifest, name=name: manifest.update({**settings, name: value}))
            with pytest.raises(CheckpointError, match=rf"{folder}/{folders.MANIFEST} (is incomplete|was changed)"):
                type(head).load(folder)


def test_another_kind_is_refused_by_name(head: Head, kind: str, folder: Path) -> None:
    for other in MAKE.keys() - {kind}:
        of = type(MAKE[other](0))
        with pytest.raises(CheckpointError, match=f"has format '{head.form}', this reads '{of.form}'"):
            of.load(folder)


def test_a_folder_without_one_says_what_is_missing(head: Head, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"no {head.what} at {tmp_path}/nowhere"):
        type(head).load(tmp_path / "nowhere")


def test_weights_that_do_not_fit_are_refused(head: Head) -> None:
    name, *others = head.weights
    lacking = replace(head, weights={other: head.weights[other] for other in others})
    with pytest.raises(CheckpointError, match=rf"(?s)weights of the {head.what} do not fit.*{name}"):
        lacking.network()


def test_saving_replaces_and_leaves_nothing_beside(kind: str, folder: Path) -> None:
    second = MAKE[kind](4)
    second.save(folder)
    assert type(second).load(folder).checkpoint_id == second.checkpoint_id
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert sorted(contents(folder)) == [folders.CARD, folders.MANIFEST, folders.WEIGHTS]


def test_saving_that_fails_keeps_what_was_there(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(folder)

    def full_disk(one: Path, other: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "exchange", full_disk)
    with pytest.raises(OSError, match="No space left"):
        MAKE[kind](4).save(folder)
    assert contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
