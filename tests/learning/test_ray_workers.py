"""A local Ray with two workers gives the results that processes give."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import ray
from learning import jobs

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput
from embodied_vision.learning import ray_workers
from embodied_vision.learning.collect import collect
from embodied_vision.learning.environments import Conditions
from embodied_vision.learning.ray_workers import RayWorkers
from embodied_vision.learning.workers import Pool

SOFTWARE = Conditions(renderer="software")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)  # short: a socket's path has at most 107 characters
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # where a worker finds the jobs
        ray_workers._join(ray, ray_workers.LOCAL, 2)
        try:
            yield
        finally:
            ray.shutdown()


@pytest.mark.timeout(150)
def test_demonstrations_are_those_of_this_process(cluster: None, tmp_path: Path) -> None:
    task = "block-insertion"
    stores = [EpisodeStore(tmp_path / name) for name in ("ray", "here")]
    there = sorted(
        collect(task, stores[0].path, 3, conditions=SOFTWARE, workers=2, ray="local"), key=lambda result: result.seed
    )
    here = list(collect(task, stores[1].path, 3, conditions=SOFTWARE))
    assert [(a.seed, a.reward, a.steps) for a in there] == [(b.seed, b.reward, b.steps) for b in here]
    for a, b in zip(there, here, strict=True):
        ours, theirs = stores[0].open(str(a.episode_id)), stores[1].open(str(b.episode_id))
        assert ours.frames("camera")[-1].color.tobytes() == theirs.frames("camera")[-1].color.tobytes()
        assert ours.stream("joint_state")[1].tobytes() == theirs.stream("joint_state")[1].tobytes()
    assert list(tmp_path.glob("ray/.ray-*")) == []
    assert ray.is_initialized()  # a cluster that others joined is left alone


@pytest.mark.timeout(150)
def test_a_lost_worker_is_replaced(cluster: None, tmp_path: Path) -> None:
    died = tmp_path / "died"
    died.mkdir()
    with Pool[int, int](RayWorkers(partial(jobs.Dies, died, 1), "local", 2, tmp_path / "shared"), 2) as workers:
        assert sorted(workers.run(range(4))) == [0, 1, 2, 3]
    assert len(list(died.iterdir())) == 1


@pytest.mark.timeout(150)
def test_a_worker_that_cannot_see_the_store_is_named(cluster: None, tmp_path: Path) -> None:
    backend = RayWorkers(partial(jobs.give, jobs.misread), "local", 2, tmp_path)
    (token,) = tmp_path.iterdir()
    token.unlink()
    with Pool[int, int](backend, 1) as workers, pytest.raises(BadInput, match=f"does not see {tmp_path} .*storage"):
        list(workers.run([1]))


def test_no_cluster_at_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def unreachable(**settings: object) -> None:
        raise ConnectionError(f"nobody listens at {settings['address']}")

    monkeypatch.setattr(ray, "init", unreachable)
    with pytest.raises(BadInput, match=r"no Ray cluster can be used at 'auto' .nobody listens at auto.; start one"):
        RayWorkers(jobs.fail, "auto", 1, tmp_path)
