"""What the policy node says of drift, and what the recorder starts to have episodes judged; without a graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (extra `ros`)")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from std_msgs.msg import String

from embodied_vision.learning import drift_known
from embodied_vision.learning.drift_known import Known, Reference, describe_action, describe_scene
from embodied_vision.learning.outcomes_views import scene_of
from embodied_vision.nodes import judging
from embodied_vision.nodes.conversions import to_json
from embodied_vision.nodes.drift_watch import QUIET_AFTER, DriftWatch
from embodied_vision.nodes.judging import Judging
from embodied_vision.nodes.lifecycle import OK, WARN
from tests.block_world import WORKSPACE, PatchEncoder, action, frame


class FakeNode:
    """Parameters, a publisher and a log, as the real node offers them."""

    def __init__(self, **values: str) -> None:
        self.values = values
        self.said: list[DiagnosticArray] = []
        self.logged: list[str] = []

    def param(self, name: str, default: str, *_: object, **__: object) -> None:
        self.values.setdefault(name, default)

    def value(self, name: str) -> str:
        return self.values[name]

    def create_publisher(self, *_: object) -> Any:
        return SimpleNamespace(publish=self.said.append)

    def post(self, call: Callable[[], None]) -> None:
        call()

    def get_name(self) -> str:
        return "policy"

    def get_fully_qualified_name(self) -> str:
        return "/policy"

    def get_clock(self) -> Any:
        return SimpleNamespace(now=lambda: SimpleNamespace(to_msg=Time))

    def get_logger(self) -> Any:
        return SimpleNamespace(warning=self.logged.append, error=self.logged.append)


def decision(rng: np.random.Generator, light: float = 1.0) -> Any:
    """What the policy explains of a decision, as far as it is watched."""
    at, goal = rng.uniform([0.35, -0.4], [0.65, 0.4], (2, 2))
    scene = scene_of([frame([tuple(at)], 1, light)], PatchEncoder(), WORKSPACE)
    return SimpleNamespace(scene=scene, action=action(tuple(at), tuple(goal), 1, scores={"pick": 0.9}))


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """What policy "abc" knows, where it is looked for."""
    rng = np.random.default_rng(0)
    usual = [decision(rng) for _ in range(40)]
    names = [str(number) for number in range(40)]
    scenes = Reference.fit([describe_scene(each.scene) for each in usual], names)
    actions = Reference.fit([describe_action(each.action) for each in usual], names)
    drift_known.save(Known("abc", "patches-1", "t", names, scenes, actions), tmp_path / "policy.known")
    return tmp_path / "policy"


def test_the_policy_node_warns_of_drift_with_the_episode_and_is_quiet_again(known: Path) -> None:
    node: Any = FakeNode()
    watch, rng = DriftWatch(node), np.random.default_rng(1)
    watch.hear_recorder(String(data=to_json({"episode": "e1"}).data))
    watch.loaded(known, "abc")

    def level(light: float) -> bytes:
        watch.look(decision(rng, light))
        return bytes(node.said[-1].status[0].level)

    assert {level(1.0) for _ in range(10)} == {OK}
    assert level(0.6) == OK
    assert WARN in [level(0.6) for _ in range(14)]
    status = node.said[-1].status[0]
    values = {pair.key: pair.value for pair in status.values}
    assert (status.name, values["channel"], values["episodes"]) == ("/policy: drift", "scene", "e1")
    assert "unlike" in status.message
    levels = [level(1.0) for _ in range(QUIET_AFTER + 1)]
    assert levels[-1] == OK


def test_without_what_is_known_nothing_is_said_and_what_is_wrong_with_it_is_logged(known: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for checkpoint, name, parameter, words in (
        (tmp_path / "other", "abc", "", ""),
        (known, "abc", "none", ""),
        (known, "xyz", "", "is about abc"),
        (tmp_path / "other", "abc", str(tmp_path / "nowhere"), "missing"),
    ):
        node: Any = FakeNode(known=parameter)
        watch = DriftWatch(node)
        watch.loaded(checkpoint, name)
        watch.look(decision(rng))
        assert not node.said
        assert bool(words) == bool(node.logged)
        assert words in "".join(node.logged)


def test_a_cut_short_file_leaves_the_policy_at_work(known: Path) -> None:
    path = known.with_name("policy.known") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    node: Any = FakeNode()
    watch = DriftWatch(node)
    watch.loaded(known, "abc")
    watch.look(decision(np.random.default_rng(1)))
    assert "damaged" in node.logged[0]


def test_closed_episodes_are_judged_one_process_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[list[str]] = []
    codes: list[int | None] = []

    class Process:
        def __init__(self, command: list[str], *, stderr: Any, **_: object) -> None:
            started.append(command)
            stderr.write(b"error: no such thing")
            self.returncode = 0

        def poll(self) -> int | None:
            self.returncode = codes[0] or 0
            return codes[0]

    monkeypatch.setattr(judging.subprocess, "Popen", Process)
    node: Any = FakeNode(outcome_classifier=str(tmp_path / "judge"))
    judged = Judging(node)
    for name in ("e1", "e2"):
        judged.closed(name)
        codes[:] = [None]
        judged.look(tmp_path)
    assert [command[-1] for command in started] == ["e1"]
    assert started[0][:3] == ["nice", "-n", "19"]
    assert started[0][started[0].index("--store") + 1] == str(tmp_path)
    codes[:] = [2]
    judged.look(tmp_path)
    assert [command[-1] for command in started] == ["e1", "e2"]
    assert "exit code 2: error: no such thing" in node.logged[0]

    quiet: Any = FakeNode()
    idle = Judging(quiet)
    idle.closed("e1")
    idle.look(tmp_path)
    assert len(started) == 2
