"""Statistics over episodes equal those over all their values at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embodied_vision.episodes import EpisodeStore, EpisodeWriter
from embodied_vision.episodes.statistics import Statistics, Values
from episodes.samples import fill, make_camera, write_episode

NUMBERS = st.one_of(st.floats(-1e6, 1e6), st.sampled_from((float("nan"), float("inf"), float("-inf"))))
PARTS = st.lists(st.integers(0, 6).flatmap(lambda rows: arrays(np.float64, (rows, 2), elements=NUMBERS)), max_size=6)


@settings(deadline=None)
@given(PARTS)
def test_merged_values_are_those_of_all_at_once(parts: list[np.ndarray]) -> None:
    values = Values(2)
    for part in parts:
        values.add(part)
    rows = np.concatenate([np.zeros((0, 2)), *parts])
    assert values.samples == len(rows)
    assert values.non_finite == (~np.isfinite(rows)).sum()
    for column in range(2):
        finite = rows[:, column][np.isfinite(rows[:, column])]
        assert values.count[column] == len(finite)
        if len(finite):
            assert (values.low[column], values.high[column]) == (finite.min(), finite.max())
            np.testing.assert_allclose(values.mean[column], finite.mean(), atol=1e-6, rtol=1e-9)
            np.testing.assert_allclose(values.std[column], finite.std(), atol=1e-6, rtol=1e-6)


def test_everything_is_counted(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "store")
    for solved in (True, True, False):
        write_episode(store, frames=5, solved=solved)
    camera = make_camera()
    with EpisodeWriter(store, task="other", robot="r", cameras=[camera], policy_id="p") as writer:
        fill(writer, camera, 3)
        writer.append("joint_states/2", 0, [1.0, 2.0])
        writer.close({"reward": 1.0})
    found = Statistics()
    for episode in store.select():
        found.add(episode)
    assert found.outcomes == {("block-insertion", ""): (2, 3)}
    assert found.untold == 1
    assert found.decisions == 4
    assert found.cameras["camera"].frames == 18
    assert found.cameras["camera"].gaps / found.cameras["camera"].spans_s == pytest.approx(15.0)
    assert {key: values.samples for key, values in found.streams.items()} == {
        ("joint_states", 7): 54,
        ("joint_states/2", 2): 1,
    }
    assert found.lengths_s[:3] == [pytest.approx(4 / 15)] * 3
    on_disk = [path for path in store.episodes_path.rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert found.bytes.total() == sum(path.stat().st_size for path in on_disk)
    color = sum(
        path.stat().st_size
        for path in on_disk
        if path.parts[-3:-1] == ("camera", "color") and "decisions" not in path.parts and path.name != "zarr.json"
    )
    assert found.bytes["color"] == color
