"""`compare` sets two policies side by side on the same scenes, from what is known of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from policies.stubs import TINY, random_checkpoint
from typer.testing import CliRunner

from embodied_vision.cli.main import app
from embodied_vision.errors import BadInput
from embodied_vision.learning.evaluate import examined
from embodied_vision.learning.scene_results import SceneLog, SceneResult
from embodied_vision.policies import checkpoint as checkpoints

TASK = "block-insertion"


def log_results(path: Path, policy: Path, rewards: list[float], preset: str = "none") -> None:
    what = examined(TASK, policy, preset)
    for number, reward in enumerate(rewards):
        SceneLog(path).add(what, SceneResult(1_000_000 + number, reward, reward == 1, 3))


def compare(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, ["compare", *map(str, arguments), "--task", TASK], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_two_policies_are_compared_from_two_logs(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    checkpoints.save(random_checkpoint("", config=TINY, seed=1), a)
    checkpoints.save(random_checkpoint("", config=TINY, seed=2), b)
    log_results(tmp_path / "a.jsonl", a, [0.5, 0, 1, 0.25])
    log_results(tmp_path / "b.jsonl", b, [1, 1, 1, 0.25])
    logs = ["--scenes", "4", "--keep", tmp_path / "a.jsonl", "--keep", tmp_path / "b.jsonl"]
    figures = json.loads(compare(a, b, *logs, "--json"))
    assert (figures["seeds"], figures["split"]) == ([1_000_000, 1_000_003], "validation")
    assert figures["a"]["checkpoint_id"] != figures["b"]["checkpoint_id"]
    assert (figures["difference"], figures["only_a"], figures["only_b"], figures["p_value"]) == (37.5, 0, 2, 0.5)
    text = compare(a, b, *logs)
    assert "difference of the scores: +37.5" in text
    assert f"{1_000_001:>8}     0.0   100.0  +100.0" in text
    assert "2 other scenes went alike" in text


def test_one_policy_is_compared_under_two_presets(tmp_path: Path) -> None:
    policy, log = tmp_path / "policy", tmp_path / "scenes.jsonl"
    checkpoints.save(random_checkpoint("", config=TINY), policy)
    log_results(log, policy, [1, 1])
    log_results(log, policy, [1, 0.5], "mild")
    figures = json.loads(compare(policy, "--preset-b", "mild", "--scenes", "2", "--keep", log, "--json"))
    assert (figures["a"]["preset"], figures["b"]["preset"], figures["difference"]) == ("none", "mild", -25.0)


def test_a_policy_is_not_compared_with_itself(tmp_path: Path) -> None:
    checkpoints.save(random_checkpoint("", config=TINY), tmp_path / "policy")
    with pytest.raises(BadInput, match="A and B are both checkpoint"):
        compare(tmp_path / "policy", tmp_path / "policy")
