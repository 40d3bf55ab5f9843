"""The commit that a result names, and when it says that the checkout was another one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from embodied_vision.learning.provenance import git_commit


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("code", "results"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("before")
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    return tmp_path


def test_a_clean_checkout_is_its_commit(checkout: Path) -> None:
    commit = git_commit(checkout / "code")
    assert len(commit) == 40
    (checkout / "code" / "new").write_text("unknown to git")
    assert git_commit(checkout / "code") == commit


def test_changed_code_is_told_and_appended_results_are_not(checkout: Path) -> None:
    commit = git_commit(checkout / "code")
    (checkout / "results" / "file").write_text("after")
    assert git_commit(checkout / "code") == commit
    (checkout / "code" / "file").write_text("after")
    assert git_commit(checkout / "code") == f"{commit}-dirty"


def test_outside_of_a_checkout_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))  # temporary files may lie inside of one
    assert git_commit(tmp_path) == ""
