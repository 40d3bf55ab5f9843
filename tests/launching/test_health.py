"""The health of a graph: the worst of all, in words, and the file that tells of it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from embodied_vision.cli.launch import app
from embodied_vision.errors import BadInput
from embodied_vision.launching.events import Event, EventLog
from embodied_vision.launching.health import Health
from embodied_vision.launching.run_status import RunStatus, check_free, read_status, write_status

STATUS = RunStatus("running", 7, "left", "ok", [], {"arm": {"state": "active", "pid": 4, "restarts": 0}})


def test_all_is_well_when_all_are_active_and_nobody_complains() -> None:
    health = Health(["arm", "encoder"])
    assert health.summary(0.0).level == 1
    assert health.summary(0.0).wrong == ("arm is starting", "encoder is starting")
    for name in ("arm", "encoder"):
        health.beat(name, "active", 1.0)
        health.status(name, "", 0, "well", 1.0)
    summary = health.summary(1.1)
    assert (summary.level, summary.wrong) == (0, ())
    assert summary.words == "all nodes are active and well"
    assert summary.nodes == {"arm": "active", "encoder": "active"}


def test_the_worst_comes_first_and_gives_the_level() -> None:
    health = Health(["arm", "encoder", "policy"])
    for name in ("arm", "encoder", "policy"):
        health.beat(name, "active", 1.0)
    health.beat("policy", "inactive", 1.0)
    health.status("encoder", "camera/color/image_raw", 2, "silent", 1.0)
    health.status("arm", "", 1, "refused", 1.0)
    summary = health.summary(1.2)
    assert summary.level == 2
    assert summary.wrong == ("encoder, camera/color/image_raw: silent", "arm: refused", "policy is inactive")


def test_a_node_without_heartbeat_is_silent_and_what_it_said_counts_no_more() -> None:
    health = Health(["arm"])
    health.beat("arm", "active", 1.0)
    health.status("arm", "", 1, "refused", 1.0)
    assert health.summary(4.0).wrong == ("arm is silent",)
    assert health.summary(4.0).nodes == {"arm": "silent"}
    health.beat("arm", "active", 8.0)
    assert health.summary(8.0).wrong == (), "the warning is old"


def test_others_do_not_count() -> None:
    health = Health(["arm"])
    health.beat("arm", "active", 1.0)
    health.status("driver", "", 2, "protective stop", 1.0)
    assert health.summary(1.0).level == 0


def test_the_file_comes_back(tmp_path: Path) -> None:
    write_status(tmp_path, STATUS)
    assert read_status(tmp_path) == STATUS


def test_a_run_whose_supervisor_is_gone_says_so(tmp_path: Path) -> None:
    write_status(tmp_path, STATUS)
    path = tmp_path / "status.json"
    content = json.loads(path.read_text())
    ended = subprocess.Popen(["true"])
    ended.wait()
    path.write_text(json.dumps({**content, "supervisor": ended.pid}))
    assert read_status(tmp_path).phase == "gone"
    path.write_text(json.dumps({**content, "monotonic_s": time.monotonic() - 60.0, "supervisor": os.getpid()}))
    assert read_status(tmp_path).level == "error"
    assert "not written for 60 s" in read_status(tmp_path).wrong[0]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"supervisor": 1, "monotonic_s": 2}'])
def test_a_folder_that_is_none_of_a_run_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match="give the folder of a run"):
        read_status(tmp_path / "none")
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(BadInput, match="give the folder of a run"):
        read_status(tmp_path)


def test_a_full_disk_does_not_end_the_run_and_leaves_nothing_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_status(tmp_path, STATUS)

    def full(*_arguments: object, **_options: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    write_status(tmp_path, STATUS)
    assert not (tmp_path / "status.json").exists()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (STATUS, 0),
        (RunStatus("running", 7, "", "warning", ["arm is inactive"], STATUS.nodes), 1),
        (RunStatus("ended", 7, "", "error", [], STATUS.nodes, "arm died"), 1),
    ],
)
def test_the_verb_tells_and_its_exit_code_says_whether_all_is_well(
    tmp_path: Path, status: RunStatus, code: int
) -> None:
    write_status(tmp_path, status)
    runner = CliRunner()
    shown = runner.invoke(app, ["status", str(tmp_path)])
    assert shown.exit_code == code
    for words in ("arm", status.level, *status.wrong):
        assert words in shown.output
    machine = runner.invoke(app, ["status", str(tmp_path), "--json"])
    assert machine.exit_code == code
    assert json.loads(machine.stdout) == asdict(status)


def test_a_folder_in_which_a_run_goes_on_is_not_taken(tmp_path: Path) -> None:
    check_free(tmp_path)
    write_status(tmp_path, STATUS)
    with pytest.raises(BadInput, match="still goes on"):
        check_free(tmp_path)
    write_status(tmp_path, replace(STATUS, phase="ended"))
    check_free(tmp_path)


def test_events_go_on_where_they_cannot_be_written() -> None:
    heard: list[Event] = []
    log = EventLog(Path("/dev/full"), heard.append)
    log.add("started", "arm", "pid 4")
    log.add("died", "arm", "signal 9")
    assert [event.kind for event in log.events] == [event.kind for event in heard] == ["started", "died"]
    log.close()
