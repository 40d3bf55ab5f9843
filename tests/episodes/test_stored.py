"""Episodes of every schema that was ever written stay readable, verifiable and repairable.

`stored/schema-N` was written by the software of schema N and is never written again. Each holds the same: a lossless
episode, a JPEG one, and a journal whose writer never ended; frames of `make_frame`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.episodes.edit import migrate, relabel, stored_schema, tag
from embodied_vision.episodes.journal import JournalWriter
from embodied_vision.episodes.repair import INTERRUPTED, repair
from embodied_vision.episodes.schema import SCHEMA
from embodied_vision.episodes.trim import trim
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import EpisodeError

from .samples import (
    START_NS,
    assert_holds,
    contents,
    files_of,
    fill,
    make_action,
    make_camera,
    make_frame,
    write_episode,
)

STORED = Path(__file__).parent / "stored"
SCHEMAS = range(1, SCHEMA + 1)


@pytest.fixture
def stored(tmp_path: Path, request: pytest.FixtureRequest) -> EpisodeStore:
    shutil.copytree(STORED / f"schema-{request.param}", tmp_path / "store")
    return EpisodeStore(tmp_path / "store")


every_schema = pytest.mark.parametrize("stored", SCHEMAS, indirect=True)


def test_there_is_a_stored_store_of_every_schema() -> None:
    assert sorted(path.name for path in STORED.iterdir()) == [f"schema-{schema}" for schema in SCHEMAS]


@every_schema
def test_stored_episodes_read_as_they_were_written(stored: EpisodeStore) -> None:
    assert [result.state for result in repair(stored)] == ["recovered"]
    assert all(report.ok for report in verify(stored))
    lossless, jpeg, opened = (stored.open(episode_id) for episode_id in in_order(stored))
    assert_holds(lossless, 3)
    assert_holds(opened, 2)
    assert (lossless.outcome, jpeg.outcome) == ({"reward": 1.0, "solved": True},) * 2
    assert opened.outcome == INTERRUPTED
    for episode, frames in ((lossless, 3), (jpeg, 3), (opened, 2)):
        assert len(episode.frames("camera")) == frames
        stamps, values = episode.stream("joint_states")
        assert stamps.tolist() == [START_NS + number for number in range(3 * frames)]
        np.testing.assert_array_equal(values, np.repeat(np.arange(frames), 3)[:, None] + np.arange(7.0))
        (decision,) = episode.decisions
        np.testing.assert_array_equal(decision.action.pick, make_action().pick)
        assert decision.info == {"checkpoint": "abc"}
        np.testing.assert_array_equal(decision.frames[0].color, make_frame(make_camera(), 0).color)


@every_schema
def test_every_schema_reads_as_the_first(stored: EpisodeStore, tmp_path: Path) -> None:
    shutil.copytree(STORED / "schema-1", tmp_path / "first")
    first = EpisodeStore(tmp_path / "first")
    repair(stored)
    repair(first)
    for one, other in zip(in_order(first), in_order(stored), strict=True):
        assert contents(stored.open(other)) == contents(first.open(one))


@every_schema
def test_migrated_episodes_read_as_before(stored: EpisodeStore) -> None:
    repair(stored)
    for episode_id in stored.ids():
        before, schema = stored.open(episode_id), stored_schema(stored, episode_id)
        assert migrate(stored, episode_id) == (schema != SCHEMA)
        assert stored_schema(stored, episode_id) == SCHEMA
        after = stored.open(episode_id)
        assert contents(after) == contents(before)
        assert (after.tags, after.created_ns, after.closed_ns) == (before.tags, before.created_ns, before.closed_ns)
        added = after.history[len(before.history) :]
        assert [(entry["what"], entry["from"]) for entry in added] == [("schema", schema)] * (schema != SCHEMA)
        assert not migrate(stored, episode_id)
    assert all(report.ok for report in verify(stored))


@every_schema
def test_episodes_of_every_schema_are_edited(stored: EpisodeStore) -> None:
    lossless, jpeg = (stored.open(episode_id) for episode_id in stored.ids())
    history = len(jpeg.history)
    tag(stored, jpeg.id, ["seen"])
    relabel(stored, jpeg.id, {"solved": False})
    trim(stored, jpeg.id, start_s=0.05)
    after = stored.open(jpeg.id)
    assert "seen" in after.tags
    assert after.outcome == {"reward": 1.0, "solved": False}
    assert [entry["what"] for entry in after.history[history:]] == ["tags", "outcome", "trim"]
    assert after.history[history + 1]["from"] == {"reward": 1.0, "solved": True}
    assert len(after.frames("camera")) == 2
    assert contents(stored.open(lossless.id)) == contents(lossless)
    assert all(report.ok for report in verify(stored))


def test_newer_schemas_are_refused_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = EpisodeStore(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("embodied_vision.episodes.versions.SCHEMA", SCHEMA + 1)
        patch.setattr("embodied_vision.episodes.versions.UPGRADES", {SCHEMA: lambda a: {**a, "schema": SCHEMA + 1}})
        episode_id = write_episode(store)
    with pytest.raises(EpisodeError, match=f"schema {SCHEMA + 1}.*update"):
        store.open(episode_id)
    before = [path.read_bytes() for path in files_of(tmp_path)]
    for change in (lambda: relabel(store, episode_id, {"a": 1}), lambda: migrate(store, episode_id)):
        with pytest.raises(EpisodeError, match=f"schema {SCHEMA + 1}.*update"):
            change()
    assert [path.read_bytes() for path in files_of(tmp_path)] == before

    staging = store.staging_path / "from-the-future"
    staging.mkdir(parents=True)
    journal = JournalWriter(staging / "journal")
    journal.append({"kind": "header", "schema": SCHEMA + 1})
    journal.release()
    (result,) = repair(store)
    assert result.state == "failed"
    assert "update" in result.detail
    assert (store.quarantine_path / "from-the-future" / "journal").exists()


@pytest.mark.parametrize("schema", [None, "2", 2.0, True, 0, -1, [1]])
def test_what_is_no_schema_is_refused(schema: object) -> None:
    from embodied_vision.episodes.versions import upgrade

    with pytest.raises(EpisodeError, match="has schema"):
        upgrade({"schema": schema}, "somewhere")


def in_order(store: EpisodeStore) -> list[str]:
    """The lossless episode, the JPEG one, the one that was brought back."""
    lossless, jpeg = sorted(set(store.ids()) - set(OPEN))
    return [lossless, jpeg, *(set(store.ids()) & set(OPEN))]


OPEN = [path.name for path in STORED.glob("*/staging/*")]


def write_stored(path: Path) -> None:
    """How a stored store is written when a schema is settled: `write_stored(STORED / f"schema-{SCHEMA}")`."""
    store, camera = EpisodeStore(path), make_camera()
    for codec in ("lossless", "jpeg"):
        with EpisodeWriter(
            store,
            task="block-insertion",
            robot="panda_suction",
            cameras=[camera],
            encoder_id="encoder-a",
            policy_id="policy-b",
            attributes={"seed": 7},
            color_codec=codec,
        ) as writer:
            fill(writer, camera, 3)
            writer.close({"reward": 1.0, "solved": True})
    tag(store, writer.id, ["stored"])
    about = {"task": "block-insertion", "robot": "panda_suction"}
    with EpisodeWriter(store, **about, cameras=[camera], color_codec="lossless") as writer:
        fill(writer, camera, 2)
