"""The supervisor with real processes: they come up, are brought back, and never outlive it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embodied_vision.errors import RunFailed
from embodied_vision.launching import heartbeats
from embodied_vision.launching.domain import hold_free_domain
from embodied_vision.launching.environment import process_environment
from embodied_vision.launching.graph import GraphConfig, NodeSpec
from embodied_vision.launching.loopback import image_loopback
from embodied_vision.launching.supervisor import Supervisor
from tests.system.rig import monitor_pid

pytestmark = [pytest.mark.system, pytest.mark.together]
NODES = (
    NodeSpec("eye", "dummy_node", 1),
    NodeSpec("hand", "dummy_node", 0, {"start_stopped": True}),
    NodeSpec("log", "dummy_node", 2),
)
START_S = 60.0
Make = Callable[..., GraphConfig]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A graph of dummy nodes that note in `tmp_path/note` when they start and end."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    (tmp_path / "note").touch()

    def config(parameters: dict[str, dict[str, Any]] | None = None, **options: Any) -> GraphConfig:
        nodes = options.pop("nodes", NODES)
        values = {n.name: {"note": str(tmp_path / "note"), **(parameters or {}).get(n.name, {})} for n in nodes}
        return GraphConfig(nodes=nodes, run_dir=tmp_path / "run", params_files=(), parameters=values, **options)

    return config


def notes(config: GraphConfig) -> list[str]:
    return (config.run_dir.parent / "note").read_text().splitlines()


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def until(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def kinds(cell: Supervisor, node: str) -> list[str]:
    return [event.kind for event in cell.events if event.node == node]


def test_nodes_start_in_the_namespace_and_end_in_order(make: Make) -> None:
    config = make(namespace="left")
    with Supervisor(config) as cell:
        cell.wait_active(START_S)
        pids = cell.pids
        assert set(pids) == {"eye", "hand", "log"}
        assert all(os.getpgid(pid) == pid for pid in pids.values())
    assert not any(alive(pid) for pid in pids.values())
    assert [line for line in notes(config) if line.endswith("ended")] == ["hand ended", "eye ended", "log ended"]
    assert all("namespace=/left" in line for line in notes(config) if "started" in line)
    assert f"ROS_DOMAIN_ID={cell.domain}" in (config.run_dir / "environment.sh").read_text()


def test_a_killed_node_comes_back_with_its_respawn_parameters(make: Make) -> None:
    config = make()
    with Supervisor(config) as cell:
        cell.wait_active(START_S)
        killed = cell.kill("hand")
        until(lambda: kinds(cell, "hand")[-1] == "active" and "died" in kinds(cell, "hand"), START_S)
        assert kinds(cell, "hand") == ["started", "active", "died", "restarted", "active"]
        assert cell.pids["hand"] != killed
        assert not cell.failure
    starts = [line for line in notes(config) if line.startswith("hand started")]
    assert ["stopped=False" in starts[0], "stopped=True" in starts[1]] == [True, True]


def test_a_death_stops_the_run_when_so_configured(make: Make) -> None:
    with Supervisor(make(use_respawn=False)) as cell:
        cell.wait_active(START_S)
        pids = cell.pids
        cell.kill("eye")
        with pytest.raises(RunFailed, match=r"eye died \(signal 9 \(SIGKILL\)\)"):
            cell.wait(30.0)
        assert not any(alive(pid) for pid in pids.values())


def test_a_node_that_keeps_dying_stops_the_run(make: Make) -> None:
    with Supervisor(make(nodes=NODES[:1], restarts=1)) as cell:
        cell.wait_active(START_S)
        cell.kill("eye")
        until(lambda: kinds(cell, "eye").count("active") == 2, START_S)
        cell.kill("eye")
        with pytest.raises(RunFailed, match="eye died 2 times in 60 s"):
            cell.wait(30.0)


def test_a_node_that_cannot_start_is_not_tried_again_and_its_log_is_shown(make: Make) -> None:
    with Supervisor(make({"eye": {"exit_code": 2}})) as cell:
        with pytest.raises(RunFailed, match=r"(?s)eye ended before it was active, exit code 2.*value 7 is wrong"):
            cell.wait_active(START_S)
        assert "restarted" not in kinds(cell, "eye")


def test_a_node_that_hangs_counts_as_dead_though_the_monitor_starts_slowly(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeats, "MODULE", "slow_monitor")
    with Supervisor(make(nodes=NODES[:1], hang_s=3.0)) as cell:
        cell.wait_active(START_S)
        cell.kill("eye", signal.SIGSTOP)
        until(lambda: kinds(cell, "eye").count("active") == 2, START_S)
        heard = ["started", "active", "silent", "silent", "died", "restarted", "active"]
        assert kinds(cell, "eye") == heard, cell.events


def test_a_monitor_that_hangs_is_replaced_and_no_node_pays_for_it(make: Make) -> None:
    with Supervisor(make(hang_s=4.0)) as cell:
        cell.wait_active(START_S)
        pids = cell.pids
        monitor = monitor_pid()
        assert monitor, "no monitor runs"
        os.kill(monitor, signal.SIGSTOP)
        until(lambda: "died" in kinds(cell, "monitor"), 20.0)
        until(lambda: not alive(monitor), 5.0)
        cell.kill("eye")
        until(lambda: kinds(cell, "eye").count("active") == 2, START_S)
        assert cell.pids["hand"] == pids["hand"], "nobody else was touched, and the new monitor hears"


def test_a_node_that_ignores_signals_is_killed_within_the_bound(make: Make) -> None:
    config = make({"eye": {"deaf": True}}, stop_s=1.0)
    with Supervisor(config) as cell:
        cell.wait_active(START_S)
        pid = cell.pids["eye"]
        start = time.monotonic()
    assert time.monotonic() - start < 10.0
    assert not alive(pid)
    assert "log ended" in notes(config), "the others still ended cleanly"


def test_nodes_die_with_a_supervisor_that_is_killed(make: Make, tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from embodied_vision.launching.graph import GraphConfig, NodeSpec
from embodied_vision.launching.supervisor import Supervisor
from tests.system.rig import monitor_pid
nodes = (NodeSpec("eye", "dummy_node"), NodeSpec("hand", "dummy_node"))
with Supervisor(GraphConfig(nodes, Path({str(tmp_path / "run")!r}), params_files=())) as cell:
    cell.wait_active({START_S})
    print(*cell.pids.values(), cell.domain, flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        *pids, _domain = map(int, supervisor.stdout.readline().split())
        assert all(alive(pid) for pid in pids)
        supervisor.kill()
        until(lambda: not any(alive(pid) for pid in pids), 5.0)


def test_two_runs_at_once_do_not_meet(make: Make, tmp_path: Path) -> None:
    second = GraphConfig(NODES[:1], tmp_path / "second", params_files=(), parameters={"eye": {"exit_code": -1}})
    with Supervisor(make(nodes=NODES[:1])) as first, Supervisor(second) as other:
        first.wait_active(START_S)
        other.wait_active(START_S)
        assert first.domain != other.domain
        first.kill("eye", signal.SIGSTOP)
        until(lambda: "silent" in kinds(first, "eye"), 15.0)
        assert "silent" not in kinds(other, "eye")


@pytest.mark.parametrize(("width", "height"), [(424, 240), (640, 480)])
def test_every_best_effort_image_arrives_with_the_shipped_profile(tmp_path: Path, width: int, height: int) -> None:
    with hold_free_domain() as lock:
        result = image_loopback(process_environment(tmp_path, lock.domain).variables, width, height, count=60)
    assert result.received == result.sent == 60
