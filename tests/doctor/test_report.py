"""The whole report: which graph is meant, and that a run that has ended is not mistaken for another's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embodied_vision.doctor import report
from embodied_vision.doctor.check import Check
from embodied_vision.doctor.report import Run, checks, run_at
from embodied_vision.errors import BadInput
from embodied_vision.launching.run_status import RunStatus, write_status


def status(folder: Path, **changes: object) -> Path:
    content = {"phase": "running", "domain": 7, "namespace": "left", "level": "ok", "wrong": [], "nodes": {}}
    write_status(folder, RunStatus(**{**content, **changes}))  # type: ignore[arg-type]
    (folder / "environment.sh").write_text(
        "export ROS_DOMAIN_ID=7\nexport EMBODIED_VISION_NAMESPACE=left\n", encoding="utf-8"
    )
    return folder


def test_a_run_is_found_by_its_folder(tmp_path: Path) -> None:
    run = run_at(status(tmp_path))
    assert (run.domain, run.namespace, run.folder) == (7, "left", tmp_path)
    assert run.variables["PATH"] == os.environ["PATH"]


def test_without_a_folder_the_terminals_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "12")
    assert run_at(None).domain == 12
    monkeypatch.delenv("ROS_DOMAIN_ID")
    assert run_at(None).domain == 0


@pytest.mark.parametrize("domain", ["abc", "-1", "233"])
def test_a_domain_that_is_none_is_bad_input(domain: str) -> None:
    with pytest.raises(BadInput, match="0 to 232"):
        Run({"ROS_DOMAIN_ID": domain})


@pytest.mark.parametrize(
    ("changes", "ok", "words"),
    [
        ({}, True, "all nodes are well"),
        ({"level": "warning", "wrong": ["cell: simulated time runs at 0.90"]}, True, "0.90"),
        ({"level": "error", "wrong": ["arm: stopped"]}, False, "arm: stopped"),
        ({"phase": "ended", "failure": "policy died"}, False, "policy died"),
    ],
)
def test_a_run_tells_how_it_does_and_one_that_ended_is_not_listened_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], ok: bool, words: str
) -> None:
    looked: list[Run] = []

    def look(run: Run, *_: object) -> Check:
        looked.append(run)
        return Check("graph", True, "")

    monkeypatch.setattr(report, "_look", look)
    monkeypatch.setattr(report, "check_machine", lambda: iter(()))
    monkeypatch.setattr(report, "check_transport", lambda _: iter([Check("rclpy", True, "")]))
    found = {check.name: check for check in checks(run_at(status(tmp_path, **changes)), (), 1.0)}
    assert found["run"].ok is ok
    assert words in found["run"].value
    assert bool(looked) is (changes.get("phase") != "ended")


def test_a_disk_without_room_for_temporary_files_is_a_line_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report.tempfile, "TemporaryDirectory", full)
    monkeypatch.setattr(report, "check_machine", lambda: iter(()))
    found = {check.name: check for check in checks(run_at(None), (), 1.0)}
    assert not found["rclpy"].ok
    assert "No space left" in found["rclpy"].value
    assert "TMPDIR" in found["rclpy"].remedy
    assert "episode store" in found
