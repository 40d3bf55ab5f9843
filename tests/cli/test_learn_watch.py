"""`learn --watch` goes on until it is told to end, and prints what came of each round."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from learning.work import TASK, log_episode

from embodied_vision.cli.learn_watch import watch
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import RunFailed
from embodied_vision.learning import learner as learning
from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.learner import Learner, LearnerConfig
from embodied_vision.learning.watch import Journal

CONFIG = LearnConfig(threads=1, holdout=0.0)


@pytest.mark.parametrize("as_json", [False, True])
def test_it_learns_as_episodes_come_and_ends_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    monkeypatch.setattr(learning, "ROUND", "learning.fake_round")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    store, policies = EpisodeStore(tmp_path / "store"), tmp_path / "policies"
    policies.mkdir()
    (policies / "how.txt").write_text("promoted", encoding="utf-8")

    def work() -> None:
        logged = {log_episode(store), log_episode(store)}
        deadline = time.monotonic() + 20
        while Journal(policies / TASK).consumed() != logged and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    working = threading.Thread(target=work)
    working.start()
    watch(store.path, policies, TASK, CONFIG, every=2, encoder="default", as_json=as_json)
    working.join()
    said = capsys.readouterr().out.strip()
    if as_json:
        assert json.loads(said) == {"task": TASK, "decision": "promoted", "reason": "so it was told"}
    else:
        assert said.startswith(f"{TASK}: promoted after learning from")


def test_a_second_one_is_refused(tmp_path: Path) -> None:
    with Learner(tmp_path / "store", tmp_path / "policies", LearnerConfig()):
        with pytest.raises(RunFailed, match="another learner watches"):
            watch(tmp_path / "store", tmp_path / "policies", None, CONFIG, every=5, encoder="default", as_json=False)
