"""A learner takes each episode once, survives whatever kills its rounds, and is alone with its store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from learning.work import TASK, log_episode
from policies.stubs import TINY, random_checkpoint

from embodied_vision.episodes.edit import change_attribute
from embodied_vision.episodes.schema import DECISIONS_BEGUN
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.learning import learner as learning
from embodied_vision.learning.holdout import is_held_out
from embodied_vision.learning.learn_config import LearnConfig
from embodied_vision.learning.learner import Learner, LearnerConfig, Status
from embodied_vision.learning.learner_round import RoundSpec, run_round, tidy
from embodied_vision.learning.promotion import Pointer
from embodied_vision.learning.watch import Arrivals, Choice, Journal, Seen, choose
from embodied_vision.policies import checkpoint as checkpoints

TESTS = Path(__file__).resolve().parents[1]
LEARN = LearnConfig(threads=1, holdout=0.0)
QUICK = LearnerConfig(every=2, poll_s=0.02, retry_s=0.2, min_free_mb=0, learn=LEARN)


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    return EpisodeStore(tmp_path / "store")


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of policies; rounds are those of `fake_round`, and promote."""
    monkeypatch.setattr(learning, "ROUND", "learning.fake_round")
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "how.txt").write_text("promoted", encoding="utf-8")
    return folder


def rounds(policies: Path) -> int:
    path = policies / "rounds.txt"
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def learn_once(store: EpisodeStore, policies: Path, config: LearnerConfig = QUICK) -> Status:
    with Learner(store.path, policies, config) as learner:
        return learner.run(once=True)


class Running:
    """A learner at work in a thread."""

    def __init__(self, store: EpisodeStore, policies: Path, config: LearnerConfig = QUICK) -> None:
        self.said: list[Status] = []
        self.learner = Learner(store.path, policies, config, on_status=self.said.append)

    def __enter__(self) -> Running:
        self.learner.__enter__()
        self._thread = threading.Thread(target=self.learner.run)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.learner.stop()
        self._thread.join(10)
        self.learner.__exit__(None, None, None)
        assert not self._thread.is_alive()

    def wait(self, accept: Callable[[Status], bool]) -> Status:
        deadline = time.monotonic() + 60
        while not (found := [status for status in list(self.said) if accept(status)]):
            assert time.monotonic() < deadline, self.said[-1:]
            time.sleep(0.01)
        return found[-1]


# What arrives


def test_each_episode_is_looked_at_once_and_those_of_held_out_scenes_are_left_out(store: EpisodeStore) -> None:
    arrivals = Arrivals(store)
    assert arrivals.look() == []
    first = log_episode(store)
    failed = log_episode(store, reward=0.4, policy_id="p")
    log_episode(store, seed=1_000_003)
    other = log_episode(store, task="place-red-in-green", policy_id="oracle")
    assert len(arrivals.look()) == 4
    assert arrivals.look() == []
    assert arrivals.seen == {
        TASK: [Seen(first, True, True, True), Seen(failed, False, True, False)],
        "place-red-in-green": [Seen(other, True, True, True)],
    }


def test_an_episode_in_which_the_arm_began_nothing_is_of_no_use(store: EpisodeStore) -> None:
    idle, arrivals = log_episode(store), Arrivals(store)
    change_attribute(store, idle, DECISIONS_BEGUN, lambda _: [])
    arrivals.look()
    assert arrivals.seen == {TASK: [Seen(idle, True, False, False)]}


def test_what_was_deleted_is_forgotten_and_what_is_damaged_left_out(store: EpisodeStore) -> None:
    arrivals = Arrivals(store)
    gone, bad, kept = (log_episode(store) for _ in range(3))
    (store.folder(bad) / "manifest.json").write_bytes(b"{")
    arrivals.look()
    assert [seen.id for seen in arrivals.seen[TASK]] == [gone, kept]
    assert list(arrivals.damaged) == [bad]
    store.folder(gone).rename(store.path / "elsewhere")
    arrivals.look()
    assert [seen.id for seen in arrivals.seen[TASK]] == [kept]


def seen(solved: str, shown: str = "") -> list[Seen]:
    """Episodes by one letter each: + solved, ~ in part, - not at all, and after them shown ones."""
    own = [Seen(f"{number:03d}", mark == "+", mark in "+~", False) for number, mark in enumerate(solved)]
    return own + [Seen(f"s{number:02d}", mark == "+", mark == "+", mark == "+") for number, mark in enumerate(shown)]


def ids(numbers: Sequence[int]) -> list[str]:
    return [f"{number:03d}" for number in numbers]


def test_a_policy_that_solves_all_that_comes_has_nothing_to_learn_from_its_work() -> None:
    assert choose(seen("+" * 30), set(), holdout=0) == Choice([], [], ids(range(30)))
    assert choose(seen("-+-+" + "+" * 10), set(), holdout=0).fresh == []


def test_a_policy_in_trouble_learns_from_what_it_managed_since_and_repeats_what_was_before() -> None:
    choice = choose(seen("+" * 12 + "-+~-+"), {"013"}, holdout=0)
    assert choice.fresh == ids([13, 14, 16])
    assert choice.new == ids([14, 16])
    assert choice.rehearsal == ids(range(12))
    assert choice.trouble
    early = choose(seen("+-+"), set(), holdout=0)
    assert early.fresh == ids([0, 2])


def test_what_a_policy_in_trouble_failed_at_goes_along_but_begins_no_round() -> None:
    choice = choose(seen("-" + "+" * 12 + "-+~-"), set(), holdout=0)
    assert list(choice.failed) == ids([13, 16])
    assert not set(choice.failed) & {*choice.fresh, *choice.new, *choice.rehearsal}
    assert choose(seen("-" + "+" * 12), set(), holdout=0).failed == ()
    assert choose(seen("---"), set(), holdout=0) == Choice([], [], [], True, tuple(ids([0, 1, 2])))


def test_what_was_shown_is_always_learnt_from_but_never_twice() -> None:
    choice = choose(seen("+" * 12, "++-"), {"s00"}, holdout=0)
    assert (choice.fresh, "s00" in choice.rehearsal) == (["s01"], True)


def test_held_out_episodes_are_neither_learnt_from_nor_repeated() -> None:
    choice = choose(seen("+" * 60 + "-" + "+" * 9), set(), holdout=0.5)
    used = {*choice.fresh, *choice.rehearsal}
    assert 0 < len(used) < 60
    assert not any(is_held_out(name, 0.5) for name in used)
    assert not used & {"060"}


def test_the_journal_tells_what_is_done_whatever_was_killed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.broken_off() is None
    first = journal.begin(["a", "b"])
    assert journal.broken_off() == first
    assert journal.consumed() == set()
    journal.end(first, ["a", "b"], {"decision": "refused"})
    second = journal.begin(["c"])
    with open(journal.path, "a", encoding="utf-8") as file:
        file.write('{"event": "ended", "episodes": ["c"')  # killed while it wrote
    assert journal.consumed() == {"a", "b"}
    assert journal.broken_off() == second
    journal.fail(second, "no room")
    assert journal.broken_off() is None
    assert journal.consumed() == {"a", "b"}


# Rounds


def test_a_round_begins_when_enough_waits_and_takes_each_episode_once(store: EpisodeStore, policies: Path) -> None:
    log_episode(store)
    assert learn_once(store, policies).rounds == 0
    log_episode(store)
    status = learn_once(store, policies)
    assert (status.rounds, status.promoted, status.waiting) == (1, 1, {TASK: 0})
    assert status.outcome["reason"] == "so it was told"
    log_episode(store)
    assert learn_once(store, policies).waiting == {TASK: 1}
    assert rounds(policies) == 1


def test_a_round_gives_way_to_everything_else(store: EpisodeStore, policies: Path) -> None:
    (policies / "how.txt").write_text("give way", encoding="utf-8")
    for _ in range(2):
        log_episode(store)
    ours = os.sched_getscheduler(0)
    nice, policy = json.loads(learn_once(store, policies).outcome["decision"])
    assert nice == 19
    assert policy in (os.SCHED_IDLE, os.SCHED_BATCH)
    assert os.sched_getscheduler(0) == ours


def test_refused_episodes_are_consumed_too(store: EpisodeStore, policies: Path) -> None:
    (policies / "how.txt").write_text("refused", encoding="utf-8")
    for _ in range(2):
        log_episode(store)
    assert learn_once(store, policies).refused == 1
    assert learn_once(store, policies).rounds == 0


def test_an_asked_round_does_not_wait_for_more(store: EpisodeStore, policies: Path) -> None:
    log_episode(store)
    with Running(store, policies) as running:
        running.wait(lambda status: status.waiting == {TASK: 1})
        assert rounds(policies) == 0
        running.learner.learn_now()
        running.wait(lambda status: status.promoted == 1)


@pytest.mark.parametrize(("how", "told"), [("die", "SIGKILL"), ("half", "SIGKILL"), ("full", "the disk is full")])
def test_a_round_that_comes_to_nothing_is_done_again(store: EpisodeStore, policies: Path, how: str, told: str) -> None:
    (policies / "how.txt").write_text(how, encoding="utf-8")
    for _ in range(2):
        log_episode(store)
    with Running(store, policies) as running:
        assert told in running.wait(lambda status: status.state == "failed").error
        (policies / "how.txt").write_text("promoted", encoding="utf-8")
        status = running.wait(lambda status: status.promoted == 1)
    assert (status.failed >= 1, status.error) == (True, "")
    assert Journal(policies / TASK).broken_off() is None


def test_after_failures_the_next_round_waits_longer_and_longer(store: EpisodeStore, policies: Path) -> None:
    (policies / "how.txt").write_text("die", encoding="utf-8")
    for _ in range(2):
        log_episode(store)
    with Running(store, policies) as running:
        running.wait(lambda status: status.failed == 3)
    assert [status.error.split()[-2] for status in running.said if status.state == "failed"] == ["0.2", "0.4", "0.8"]


def test_a_stop_breaks_a_round_off_and_its_process_ends(store: EpisodeStore, policies: Path) -> None:
    (policies / "how.txt").write_text("hang", encoding="utf-8")
    for _ in range(2):
        log_episode(store)
    with Running(store, policies) as running:
        running.wait(lambda status: status.phase == "training")
        pid = int((policies / "rounds.txt").read_text(encoding="utf-8").split()[0])
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert Journal(policies / TASK).broken_off() is not None


def test_a_killed_learner_takes_its_round_along_and_the_next_one_does_it(store: EpisodeStore, policies: Path) -> None:
    (policies / "how.txt").write_text("hang", encoding="utf-8")
    for _ in range(2):
        log_episode(store)
    code = (
        "import sys; from pathlib import Path; from embodied_vision.learning import learner as l;"
        "l.ROUND = 'learning.fake_round'; learn = l.LearnConfig(holdout=0.0);"
        "config = l.LearnerConfig(every=2, poll_s=0.02, min_free_mb=0, learn=learn);"
        "w = l.Learner(Path(sys.argv[1]), Path(sys.argv[2]), config);"
        "w.__enter__(); w.run()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(store.path), str(policies)])
    try:
        deadline = time.monotonic() + 60
        while not rounds(policies):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with pytest.raises(RunFailed, match=f"another learner watches.*process {parent.pid}"):
            learn_once(store, policies)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    child = int((policies / "rounds.txt").read_text(encoding="utf-8").split()[0])
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}/stat").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline, "the round outlived its learner"
        time.sleep(0.02)
    (policies / "how.txt").write_text("promoted", encoding="utf-8")
    assert learn_once(store, policies).promoted == 1


def test_no_round_begins_without_room(store: EpisodeStore, policies: Path) -> None:
    for _ in range(2):
        log_episode(store)
    status = learn_once(store, policies, LearnerConfig(every=2, min_free_mb=1e12, learn=LEARN))
    assert (status.state, status.rounds) == ("short of room", 0)
    assert "min_free_mb" in status.error


def test_senseless_settings_are_refused() -> None:
    with pytest.raises(BadInput, match="every is 0"):
        LearnerConfig(every=0)


# The real round


def test_a_kill_at_any_time_leaves_a_whole_checkpoint_and_the_work_goes_on(tmp_path: Path, store: EpisodeStore) -> None:
    """A process is killed at moments all over a round; what is in use loads every time, and a last round promotes."""
    pointer = Pointer(tmp_path / "policies", TASK)
    pointer.promote(pointer.add(random_checkpoint("", config=TINY)).name, "start")
    for _ in range(2):
        log_episode(store)
    script = TESTS / "learning" / "killed_rounds.py"
    done = subprocess.run(
        [sys.executable, str(script), str(store.path), str(pointer.folder.parent)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed" in done.stdout
    assert len(pointer.history()) >= 2
    assert checkpoints.load(pointer.folder / "current").training["episodes"] == store.ids()


def test_what_a_killed_round_had_half_written_is_removed(tmp_path: Path) -> None:
    pointer = Pointer(tmp_path, TASK)
    name = pointer.add(random_checkpoint("", config=TINY)).name
    pointer.promote(name, "start")
    half = pointer.folder / "checkpoints" / ".0123456789abcdef.12345678"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    replaced = pointer.path(name)
    replaced.rename(half.with_name(f".{name}.12345678.former"))
    tidy(pointer.folder, tmp_path / "store")
    assert checkpoints.load(pointer.folder / "current").checkpoint_id == name
    assert [path.name for path in half.parent.iterdir()] == [name]


def test_a_full_disk_fails_the_round_and_says_so(tmp_path: Path, store: EpisodeStore, monkeypatch: Any) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "/policies/model.safetensors")

    monkeypatch.setattr("embodied_vision.learning.learner_round.start", full)
    spec = RoundSpec(TASK, str(store.path), str(tmp_path), "default", ["a"], [], LEARN)
    with pytest.raises(RunFailed, match=r"model.safetensors cannot be used \(No space left on device\); free space"):
        run_round(RoundSpec.from_json(spec.to_json()), lambda _: None)
