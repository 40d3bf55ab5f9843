"""The episode store: written to for real, its room, and what dead recorders left in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embodied_vision.doctor import store as looks
from embodied_vision.doctor.check import Check
from embodied_vision.doctor.expected import Expected, expected
from embodied_vision.doctor.store import check_store
from embodied_vision.episodes.store import EpisodeStore

WRITE = """
import sys, time
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.writer import EpisodeWriter
writer = EpisodeWriter(EpisodeStore(sys.argv[1]), task="t", robot="r", cameras=[])
print("begun", flush=True)
time.sleep(60)
"""

LIMITED = """
import json, resource, sys
from pathlib import Path
from embodied_vision.doctor.expected import Expected
from embodied_vision.doctor.store import check_store
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
found = check_store(Expected({"recorder": {"store": sys.argv[1]}}))
print(json.dumps([[check.name, check.ok, check.value, check.remedy] for check in found]))
"""


def checks(store: Path, **recorder: object) -> dict[str, Check]:
    given = Expected({"recorder": {"store": str(store), **recorder}})
    return {check.name: check for check in check_store(given)}


def test_a_store_that_will_be_made_is_fine_and_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "free_bytes", lambda _: 100 << 30)
    found = checks(tmp_path / "new" / "store")
    assert all(check.ok for check in found.values()), found
    assert "will be made" in found["episode store"].value
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_no_more_is_found(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True)
    name, ok, value, remedy = json.loads(done.stdout)[0]
    assert (name, ok) == ("episode store", False)
    assert str(tmp_path) in value
    assert "free space" in remedy
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else_is_found(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert not checks(tmp_path)["episode store"].ok


def test_a_file_in_place_of_the_store_is_found(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("x", encoding="utf-8")
    check = checks(tmp_path / "store")["episode store"]
    assert not check.ok
    assert "no folder" in check.value


def test_room_for_few_minutes_is_found_and_told_in_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "free_bytes", lambda _: 1 << 30)
    assert "minutes at" in checks(tmp_path)["episode store room"].value
    check = checks(tmp_path, min_free_mb=1000)["episode store room"]
    assert not check.ok
    assert "0 minutes" in check.value


def test_the_rate_of_the_cameras_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "free_bytes", lambda _: 5 << 30)
    given = Expected({"recorder": {"store": str(tmp_path)}})
    slow, fast = (
        next(check.value for check in check_store(given, {"camera": rate}) if check.name == "episode store room")
        for rate in (15.0, 60.0)
    )
    assert float(slow.split("; ")[1].split()[0]) > 3 * float(fast.split("; ")[1].split()[0])


def test_an_episode_of_a_dead_recorder_is_found_and_one_of_a_live_one_let_be(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITE, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    assert checks(tmp_path)["episode store leftovers"].ok
    process.send_signal(signal.SIGKILL)
    process.wait()
    check = checks(tmp_path)["episode store leftovers"]
    assert not check.ok
    assert EpisodeStore(tmp_path).staging_ids()[0] in check.value
    assert f"episodes repair {tmp_path}" in check.remedy


def test_the_shipped_parameters_name_the_store() -> None:
    assert expected([]).value("recorder", "store") == "episodes"
