"""Whoever works, the results are the same; workers that die are replaced, and all end with who started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from learning import jobs

from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.learning.processes import Processes
from embodied_vision.learning.workers import LOSSES, Here, Pool, Workers


def pool(make: Callable[[], Any], count: int = 2, **settings: Any) -> Workers[int, Any]:
    return Pool(Processes(make), count, **settings)


def wait_until(condition: Callable[[], bool], bound_s: float = 20.0) -> None:
    end = time.monotonic() + bound_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_each_worker_makes_its_job_once_and_runs_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    with pool(jobs.Squares) as workers:
        results = [*workers.run(range(6)), *workers.run(range(6, 10))]
    assert sorted(result[0] for result in results) == [n * n for n in range(10)]
    asked = [result[1:3] for result in results]
    assert len(set(asked)) == 10  # no worker starts counting again
    assert 1 <= len({pid for pid, _ in asked} - {os.getpid()}) <= 2
    assert {result[3] for result in results} == {"1"}
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    with Here[int, Any](jobs.Squares) as here:
        assert [(result[0], result[3]) for result in here.run([3])] == [(9, "3")]


def test_errors_arrive_as_they_were_with_where_they_came_from() -> None:
    with pool(partial(jobs.give, jobs.misread)) as workers, pytest.raises(BadInput, match="7 is odd") as caught:
        list(workers.run([7]))
    assert "in misread" in caught.value.__notes__[0]
    with pool(partial(jobs.give, jobs.blunder)) as workers, pytest.raises(RunFailed, match="in blunder"):
        list(workers.run([7]))
    with pool(partial(jobs.give, jobs.refuse)) as workers, pytest.raises(RunFailed, match="joint 1 is 7, limit 3"):
        list(workers.run([7]))
    with pool(jobs.fail) as workers, pytest.raises(FileNotFoundError, match="no checkpoint"):
        list(workers.run([7]))


def test_a_killed_worker_is_replaced_and_its_item_done_again(tmp_path: Path) -> None:
    with pool(partial(jobs.Dies, tmp_path, 2)) as workers:
        assert sorted(workers.run(range(4))) == [0, 1, 2, 3]
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_killed_worker_had_finished_is_not_done_again(tmp_path: Path) -> None:
    with pool(partial(jobs.Dies, tmp_path, 1), settle=lambda item: 100 + item) as workers:
        assert sorted(workers.run(range(3))) == [0, 2, 101]


def test_an_item_that_kills_every_worker_ends_the_run(tmp_path: Path) -> None:
    with pool(partial(jobs.Dies, tmp_path, 99)) as workers:
        with pytest.raises(RunFailed, match="was killed by SIGKILL at 1, for the 3rd time; is there too little memory"):
            list(workers.run(range(4)))
    assert len(list(tmp_path.iterdir())) == LOSSES


def test_workers_are_stopped_in_the_middle_of_their_items_and_clean_up(tmp_path: Path) -> None:
    with pool(partial(jobs.Endless, tmp_path)) as workers:

        def interrupt() -> None:
            wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            list(workers.run([1, 2]))
        assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []


def test_workers_end_with_a_program_that_is_killed(tmp_path: Path) -> None:
    program = f"""
from functools import partial
from pathlib import Path
from learning import jobs
from embodied_vision.learning.processes import Processes
from embodied_vision.learning.workers import Pool
with Pool(Processes(partial(jobs.Endless, Path({str(tmp_path)!r}))), 2) as workers:
    list(workers.run([1, 2]))
"""
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": paths}) as driver:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        pids = [int(file.name) for file in tmp_path.iterdir()]
        driver.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert list(tmp_path.iterdir()) == []
