"""The catalogue says what the episodes say, whatever happens to it or to them."""

from __future__ import annotations

import logging
import os
import resource
import runpy
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embodied_vision.episodes import EpisodeStore, catalogue_file, summary_reader
from embodied_vision.episodes.catalogue import NAME, SORTS, Catalogue, forget
from embodied_vision.episodes.edit import delete, relabel, tag
from embodied_vision.episodes.filters import Filter, to_ns
from embodied_vision.episodes.summary import Damaged, Summary
from embodied_vision.errors import BadInput, EpisodeError
from episodes.samples import Child
from episodes.small import ROOT, SmallStore, copy_of

TASKS, ROBOTS, POLICIES = ("stack", "insert", "äöü 'x'"), ("panda", "ur5"), ("", "p1", "p2")
OUTCOMES: tuple[dict[str, Any], ...] = (
    {"solved": True, "reward": 1.0},
    {"solved": False, "reward": 0.0, "aborted": True},
    {"solved": 1, "reward": "NaN"},
    {"reward": None},
    {},
)
TAGS: tuple[list[str], ...] = ([], ["good"], ["bad", "good"])

ATTRIBUTES = st.fixed_dictionaries(
    {
        "task": st.sampled_from(TASKS),
        "robot": st.sampled_from(ROBOTS),
        "policy_id": st.sampled_from(POLICIES),
        "encoder_id": st.sampled_from(POLICIES),
        "outcome": st.sampled_from(OUTCOMES),
        "tags": st.sampled_from(TAGS),
        "created_ns": st.integers(0, 5),
    }
)
FILTERS = st.builds(
    Filter,
    task=st.sampled_from((None, *TASKS)),
    robot=st.sampled_from((None, None, *ROBOTS)),
    policy_id=st.sampled_from((None, None, *POLICIES)),
    encoder_id=st.sampled_from((None, None, *POLICIES)),
    outcome=st.sampled_from(({}, {"solved": True}, {"solved": False}, {"aborted": True}, {"reward": None})),
    tags=st.sampled_from(((), ("good",), ("bad", "good"))),
    since_ns=st.sampled_from((None, 2, -(2**70))),
    until_ns=st.sampled_from((None, 4, 2**70)),
)


@pytest.fixture
def small(tmp_path: Path) -> SmallStore:
    return SmallStore(tmp_path)


@pytest.fixture
def three(small: SmallStore) -> SmallStore:
    """Two stacked, one inserted, with distinct numbers."""
    for number, task in enumerate(("stack", "insert", "stack")):
        small.add(task=task, created_ns=10 - number, closed_ns=20, outcome={"reward": number, "solved": number > 0})
    return small


def brute_force(store: EpisodeStore, wanted: Filter) -> tuple[list[str], list[str]]:
    """Ids of what matches and of what is damaged, by opening every episode."""
    matching, damaged = [], []
    for episode_id in store.ids():
        try:
            if wanted.accepts(store.open(episode_id)):
                matching.append(episode_id)
        except EpisodeError:
            damaged.append(episode_id)
    return matching, damaged


def by_catalogue(store: EpisodeStore, wanted: Filter) -> tuple[list[str], list[str]]:
    """The same by `select`."""
    errors: list[EpisodeError] = []
    conditions = {**vars(wanted), "since": wanted.since_ns, "until": wanted.until_ns}
    del conditions["since_ns"], conditions["until_ns"]
    matching = [episode.id for episode in store.select(**conditions, on_damaged=errors.append)]
    return matching, [next(i for i in store.ids() if i in str(error)) for error in errors]


def listed(store: EpisodeStore, wanted: Filter | None = None, **order: Any) -> list[Summary | Damaged]:
    with Catalogue(store.path) as catalogue:
        return catalogue.find(wanted or Filter(), **order)


def assert_right(store: EpisodeStore, wanted: Filter) -> None:
    matching, damaged = brute_force(store, wanted)
    assert by_catalogue(store, wanted) == (matching, damaged)
    found = listed(store, wanted)
    assert [entry.id for entry in found] == sorted([*matching, *damaged])
    for entry in found:
        if isinstance(entry, Summary):
            episode = store.open(entry.id)
            assert (
                vars(entry).items()
                >= {
                    "task": episode.task,
                    "robot": episode.robot,
                    "outcome": episode.outcome,
                    "tags": episode.tags,
                    "created_ns": episode.created_ns,
                    "decisions": len(episode.decisions),
                    "samples": {"joint_states": 3},
                }.items()
            )


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_select_and_list_are_as_if_every_episode_were_opened(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        small = SmallStore(Path(folder))
        for _ in range(data.draw(st.integers(1, 8))):
            ids = small.store.ids()
            step = data.draw(st.sampled_from(("add", "add", "replace", "relabel", "tag", "delete", "damage", "lose")))
            whole = [i for i in ids if i in brute_force(small.store, Filter())[0]]
            if step == "add" or not whole:
                small.add(**data.draw(ATTRIBUTES))
                continue
            episode_id = data.draw(st.sampled_from(whole))
            if step == "replace":
                small.edit(episode_id, **data.draw(ATTRIBUTES))
            elif step == "relabel":
                relabel(small.store, episode_id, data.draw(st.sampled_from(OUTCOMES)))
            elif step == "tag":
                tag(small.store, episode_id, add=["good"])
            elif step == "delete":
                delete(small.store, episode_id)
            elif step == "damage" and not (small.store.path / NAME).exists():
                small.damage(episode_id)
            elif step == "lose" and not (small.store.path / NAME).exists():
                (small.store.episodes_path / episode_id / "manifest.json").unlink()
            if data.draw(st.booleans()):
                assert_right(small.store, data.draw(FILTERS))
        assert_right(small.store, data.draw(FILTERS))
        assert_right(small.store, Filter())


def test_only_what_is_new_or_changed_is_read_again(three: SmallStore) -> None:
    read: list[int] = []
    with Catalogue(three.store.path, progress=lambda done, total: read.append(total)):
        pass
    with Catalogue(three.store.path, progress=lambda done, total: read.append(total)):
        pass
    three.edit(three.store.ids()[1], task="other")
    three.add()
    three.delete(three.store.ids()[0])
    with Catalogue(three.store.path, progress=lambda done, total: read.append(total)):
        pass
    with Catalogue(three.store.path, rebuild=True, progress=lambda done, total: read.append(total)):
        pass
    assert read == [3, 2, 3]


def test_episode_replaced_under_the_same_inode_is_read_again(three: SmallStore) -> None:
    episode_id, folder = three.store.ids()[0], three.store.episodes_path / three.store.ids()[0]
    listed(three.store)
    inode = folder.stat().st_ino
    copy_of(three.template, three.beside / episode_id, {"task": "other"})
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for entry in (three.beside / episode_id).iterdir():
        entry.rename(folder / entry.name)
    assert folder.stat().st_ino == inode
    assert [entry.id for entry in listed(three.store, Filter(task="other"))] == [episode_id]


def test_damaged_episodes_are_listed_and_read_again_once_they_are_restored(three: SmallStore) -> None:
    damaged = three.store.ids()[1]
    three.damage(damaged)
    (entry,) = (entry for entry in listed(three.store, Filter(task="none")))
    assert entry == Damaged(damaged, entry.error)
    assert "sha256" in entry.error
    reads: list[int] = []
    with Catalogue(three.store.path, progress=lambda done, total: reads.append(total)):
        assert reads == []
    three.restore(damaged)
    assert [entry.id for entry in listed(three.store, Filter(task="insert"))] == [damaged]


def test_episode_out_of_reach_is_tried_once_each_time(three: SmallStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one user cannot read another one may."""
    reads: list[str] = []
    out_of_reach = three.store.ids()[1]

    def read_summary(folder: Path) -> Summary:
        reads.append(folder.name)
        if folder.name == out_of_reach:
            raise EpisodeError("cannot be read") from PermissionError(13, "Permission denied")
        return summary_reader.read_summary(folder)

    stub = types.SimpleNamespace(read_summary=read_summary, traces=summary_reader.traces)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "embodied_vision.episodes.summary_reader", stub)
        for _ in range(3):
            assert listed(three.store)[1] == Damaged(out_of_reach, "cannot be read")
    assert reads.count(out_of_reach) <= 2 * 3
    assert len(reads) - reads.count(out_of_reach) == 2
    assert isinstance(listed(three.store)[1], Summary)


def test_selecting_opens_what_it_yields(three: SmallStore) -> None:
    """The catalogue cannot notice what is changed within a folder; `select` does."""
    list(three.store.select(task="stack"))
    first = three.store.ids()[0]
    three.damage(first)
    errors: list[EpisodeError] = []
    assert len(list(three.store.select(task="stack", on_damaged=errors.append))) == 1
    assert first in str(errors[0])
    with pytest.raises(EpisodeError):
        list(three.store.select(task="stack"))


def test_episodes_deleted_while_they_are_selected_are_left_out(three: SmallStore) -> None:
    episodes = three.store.select(robot="panda")
    first = next(episodes)
    second, third = (i for i in three.store.ids() if i != first.id)
    delete(three.store, second)
    assert [episode.id for episode in episodes] == [third]


def test_orders_and_limits(three: SmallStore) -> None:
    a, b, c = three.store.ids()
    three.damage(b)
    assert [entry.id for entry in listed(three.store)] == [a, b, c]
    assert [entry.id for entry in listed(three.store, reverse=True)] == [c, b, a]
    assert [entry.id for entry in listed(three.store, sort="started")] == [c, a, b]  # the damaged one last
    assert [entry.id for entry in listed(three.store, sort="reward", reverse=True)] == [c, a, b]
    assert [entry.id for entry in listed(three.store, sort="duration", limit=1)] == [a]
    for sort in SORTS:
        assert {entry.id for entry in listed(three.store, sort=sort)} == {a, b, c}
    with pytest.raises(BadInput, match="id, started"):
        listed(three.store, sort="; DROP TABLE episodes")


def test_times_are_numbers_or_datetimes() -> None:
    assert (
        to_ns(datetime(2026, 1, 2, 3, 4, 5, 6)) == to_ns(datetime(2026, 1, 2, 3, 4, 5, 6, UTC)) == 1767323045000006000
    )
    assert to_ns(7) == 7
    for wrong in (True, 1.5, "2026"):
        with pytest.raises(BadInput, match="no time"):
            to_ns(wrong)  # type: ignore[arg-type]


def test_a_single_text_is_no_list_of_tags(three: SmallStore) -> None:
    with pytest.raises(BadInput, match="tags"):
        three.store.select(tags="good")


def test_forgetting_drops_the_row_and_needs_no_catalogue(three: SmallStore) -> None:
    first = three.store.ids()[0]
    forget(three.store.path, first)
    assert not (three.store.path / NAME).exists()
    listed(three.store)
    forget(three.store.path, first)
    reads: list[int] = []
    with Catalogue(three.store.path, progress=lambda done, total: reads.append(total)):
        assert reads == [1]
    (three.store.path / NAME).write_text("nonsense")
    forget(three.store.path, first)
    assert len(listed(three.store)) == 3


def wrecks(path: Path) -> Iterator[str]:
    """Ways in which the file is no catalogue, one after the other."""
    whole = path.read_bytes()
    for size in (0, 1, 15, 100, 4096, 5000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        yield f"cut at {size}"
    path.write_bytes(os.urandom(len(whole)))
    yield "noise"
    path.write_bytes(whole[:4096] + os.urandom(len(whole) - 4096))
    yield "noise after the first page"
    path.unlink()
    with sqlite3.connect(path) as foreign:
        foreign.execute("CREATE TABLE episodes (id TEXT)")
    foreign.close()
    yield "of another program"
    path.unlink()
    os.mkfifo(path)
    yield "a pipe"


def test_a_file_that_is_no_catalogue_is_made_anew(three: SmallStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    wanted = Filter(task="stack", outcome={"solved": True})
    path = three.store.path / NAME
    listed(three.store)
    for how in wrecks(path):
        caplog.clear()
        assert_right(three.store, wanted)
        assert "made anew" in caplog.text or how in ("cut at 0", "a pipe"), how
        with Catalogue(three.store.path) as catalogue:
            assert catalogue.kept
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_no_flipped_bit_in_the_file_makes_it_say_a_wrong_thing(three: SmallStore) -> None:
    path = three.store.path / NAME
    right = {entry.id: entry for entry in listed(three.store)}
    whole = path.read_bytes()
    used = [index for index, byte in enumerate(whole) if byte]
    for index in used[:: max(1, len(used) // 60)]:
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 0x10]) + whole[index + 1 :])
        for entry in listed(three.store):
            assert entry == right[entry.id], index
        assert set(by_catalogue(three.store, Filter(task="stack"))[0]) <= set(three.store.ids())
    assert listed(three.store, Filter(task="stack"))


def test_nothing_outside_the_store_is_written_through_a_link(three: SmallStore, tmp_path: Path) -> None:
    outside = tmp_path / "precious"
    outside.write_text("precious")
    (three.store.path / NAME).symlink_to(outside)
    assert len(listed(three.store)) == 3
    assert outside.read_text() == "precious"
    # a journal that names another file, which SQLite would delete
    named = str(outside).encode()
    end = len(named).to_bytes(4, "big") + sum(named).to_bytes(4, "big") + catalogue_file._SUPER_JOURNAL
    (three.store.path / f"{NAME}-journal").write_bytes(bytes(512) + named + end)
    assert len(listed(three.store)) == 3
    assert outside.read_text() == "precious"


def test_hostile_attributes_are_damage(small: SmallStore) -> None:
    hostile: tuple[dict[str, Any], ...] = (
        {"task": 5},
        {"outcome": []},
        {"created_ns": 10**30},
        {"tags": [[]]},
        {"decisions": -1},
        {"cameras": [{"name": "../../x"}]},
        {"streams": {"a": {"length": "many"}}},
        {"schema": 999},
    )
    ids = [small.add(**attributes) for attributes in hostile]
    found = listed(small.store)
    assert [entry.id for entry in found] == ids
    assert all(isinstance(entry, Damaged) for entry in found)
    good = small.add(outcome={"reward": 10**400, "solved": [1]}, task="\x00'; DROP")
    assert [entry.id for entry in listed(small.store, Filter(task="\x00'; DROP"), limit=1)] == ids[:1]
    assert [episode.id for episode in small.store.select("\x00'; DROP", on_damaged=lambda error: None)] == [good]


def test_links_are_no_episodes(three: SmallStore) -> None:
    (three.store.episodes_path / "0link").symlink_to(three.template)
    assert "0link" not in [entry.id for entry in listed(three.store)]


def test_read_only_store_is_listed_without_being_written(three: SmallStore, caplog: pytest.LogCaptureFixture) -> None:
    listed(three.store)
    three.add(task="new")
    for folder in (three.store.path, three.store.path.parent):
        folder.chmod(0o555)
    (three.store.path / NAME).chmod(0o444)
    before = (three.store.path / NAME).read_bytes()

    def work() -> None:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)  # to root nothing is read-only
        with Catalogue(three.store.path) as catalogue:
            assert not catalogue.kept
            assert len(catalogue.find(Filter(task="new"))) == 1
        assert len(listed(three.store)) == 4

    for parent in three.store.path.parents:
        if os.geteuid() == 0 and parent.owner() == "root" and parent != Path("/") and "pytest" in str(parent):
            parent.chmod(0o755)
    with Child(work) as child:
        assert child.wait() == 0
    assert (three.store.path / NAME).read_bytes() == before


def test_store_that_cannot_be_locked_is_listed_and_it_is_said_once(
    three: SmallStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_file, "_WAIT_S", 0.05)
    listed(three.store)
    with sqlite3.connect(three.store.path / NAME, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        for _ in range(3):
            assert_right(three.store, Filter(task="stack"))
        other.execute("ROLLBACK")
    other.close()
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [str(three.store.path) in record.getMessage() for record in warnings] == [True]
    with Catalogue(three.store.path) as catalogue:
        assert catalogue.kept


def test_folder_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "episodes").write_text("")
    with pytest.raises(EpisodeError, match="cannot be listed"), Catalogue(tmp_path):
        pass


def test_killed_at_any_time_it_does_not_lie(small: SmallStore) -> None:
    for number in range(60):
        small.add(task=TASKS[number % 3])
    begun = time.perf_counter()
    listed(small.store)
    whole_s = time.perf_counter() - begun
    catalogue_file_path = small.store.path / NAME
    for number in range(8):
        if number % 3 == 0:
            catalogue_file_path.unlink(missing_ok=True)
        small.edit(small.store.ids()[number], task="edited")

        def work() -> None:
            for _ in range(50):
                with Catalogue(small.store.path, rebuild=True):
                    pass

        with Child(work) as child:
            deadline = time.perf_counter() + whole_s * (number + 1) / 6
            while time.perf_counter() < deadline:
                os.sched_yield()
            child.kill()
        assert_right(small.store, Filter(task="edited"))
        assert_right(small.store, Filter(task=TASKS[0]))


def test_several_processes_may_use_it_at_once(small: SmallStore) -> None:
    for _ in range(40):
        small.add(task="stack")
    edited = small.store.ids()[0]

    def work() -> None:
        for number in range(15):
            forget(small.store.path, edited)
            found = listed(small.store, Filter(task="stack"))
            assert len(found) >= 39, len(found)
            if number % 5 == 0:
                with Catalogue(small.store.path, rebuild=True):
                    pass

    children = [Child(work) for _ in range(3)]
    for _ in range(20):
        small.add(task="late")
        small.edit(edited, task="stack")
    assert [child.wait() for child in children] == [0, 0, 0]
    assert_right(small.store, Filter(task="late"))
    assert len(listed(small.store)) == 60


def test_a_summary_comes_back_from_its_json(three: SmallStore) -> None:
    for entry in listed(three.store):
        assert isinstance(entry, Summary)
        assert Summary.from_json(entry.to_json()) == entry
        assert entry.size_bytes == sum(
            path.stat().st_size
            for path in (three.store.episodes_path / entry.id).rglob("*")
            if path.is_file() and path.name != "manifest.json"
        )
    assert ROOT.endswith("zarr.json")


def test_full_disk_leaves_a_catalogue_in_memory(small: SmallStore) -> None:
    for _ in range(80):
        small.add(task="stack")

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        with Catalogue(small.store.path) as catalogue:
            assert not catalogue.kept
            assert len(catalogue.find(Filter(task="stack"))) == 80
        assert len([*small.store.select(task="stack")]) == 80

    with Child(work) as child:
        assert child.wait() == 0
    assert_right(small.store, Filter(task="stack"))


def test_the_example_of_the_page_selects(small: SmallStore, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    page = (Path(__file__).parents[2] / "docs" / "episodes.md").read_text(encoding="utf-8")
    section = page.partition("## Finding episodes")[2]
    example = section.partition("```python\n")[2].partition("```")[0]
    wanted = small.add(task="block-insertion", outcome={"solved": True}, created_ns=2 * 10**18, tags=["a"])
    small.add(task="block-insertion", outcome={"solved": True}, created_ns=1)
    (small.store.path.parent / "demo").mkdir()
    small.store.path.rename(small.store.path.parent / "demo" / "episodes")
    monkeypatch.chdir(small.store.path.parent)
    Path("example.py").write_text(example, encoding="utf-8")
    runpy.run_path("example.py")
    assert capsys.readouterr().out.splitlines() == [f"{wanted} ('a',)"]
