"""Workers on a Ray cluster: actors of one CPU each, on any of its nodes.

Needs the extra `ray`. Jobs, items and results are pickled; files are not shipped, so what workers read or write lies
on storage that every node mounts under the same path, and every node has this package installed.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from embodied_vision import __version__
from embodied_vision.errors import BadInput, RunFailed
from embodied_vision.learning.workers import Job, Lost, Worker, outcome

LOCAL = "local"
"""Address of a cluster that is started on this machine and ended afterwards."""
STARTING_S = 180.0
"""How long the cluster may take to have room for the first worker."""
_SOCKET_PATH = 107 - len("/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store")


class RayWorkers:
    """Backend of Ray actors. Joins the cluster when it is made; uses one that the program is in already.

    Args:
        make: makes a worker's job.
        address: `local`, `auto`, `HOST:PORT` or `ray://HOST:PORT`.
        count: how many workers a local cluster shall have room for.
        shared: folder that every worker must see as this process does.

    Raises:
        BadInput: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, make: Callable[[], Job[Any, Any]], address: str, count: int, shared: Path) -> None:
        try:
            import ray
        except ModuleNotFoundError as error:
            raise BadInput(f"Ray is not installed ({error}); install it: pip install 'embodied_vision[ray]'") from error
        self._ray, self._make, self._address = ray, make, address
        self._joined = not ray.is_initialized()
        if self._joined:
            _join(ray, address, count)
        self._actor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Actor)
        self._ready = False
        self._token = shared / f".ray-{uuid.uuid4().hex}"
        try:
            shared.mkdir(parents=True, exist_ok=True)
            self._token.write_text(__version__, encoding="utf-8")
        except OSError as error:
            raise BadInput(f"{self._token} cannot be written ({error.strerror}); check the folder") from error

    def start(self) -> RayWorker:
        """A new actor; it waits until the cluster has a CPU for it."""
        return RayWorker(self._ray, self._actor.remote(), self._make, self._token)

    def wait(self, workers: Sequence[Worker]) -> Sequence[Worker]:
        """See `Backend`.

        Raises:
            RunFailed: the cluster had no room for any worker.
        """
        owners = {worker.result: worker for worker in workers if isinstance(worker, RayWorker)}
        done, _ = self._ray.wait(list(owners), num_returns=1, timeout=None if self._ready else STARTING_S)
        if not done:
            raise RunFailed(
                f"the Ray cluster at {self._address!r} had no room for a worker within {STARTING_S:.0f} s; it has "
                f"{self._ray.cluster_resources().get('CPU', 0):.0f} CPUs, all in use or gone: see `ray status`"
            )
        self._ready = True
        return [owners[reference] for reference in done]

    def close(self) -> None:
        """Leave the cluster, and end a local one."""
        self._token.unlink(missing_ok=True)
        if self._joined:
            self._ray.shutdown()


class RayWorker:
    """An actor that does one item at a time.

    Attributes:
        result: reference to what it is working on.
    """

    def __init__(self, ray: Any, actor: Any, make: Callable[[], Job[Any, Any]], token: Path) -> None:
        self._ray, self._actor = ray, actor
        self.result: Any = actor.prepare.remote(make, token, __version__)

    def give(self, item: Any) -> None:
        """See `Worker`."""
        self.result = self._actor.work.remote(item)

    def take(self) -> Any:
        """See `Worker`."""
        try:
            done, result = self._ray.get(self.result)
        except self._ray.exceptions.RayTaskError as error:
            raise RunFailed(
                f"a Ray worker cannot run the job ({str(error.cause).splitlines()[0]}); install embodied_vision "
                f"{__version__} with the same extras on all nodes"
            ) from error
        except self._ray.exceptions.RayError as error:
            raise Lost(f"Ray worker lost ({type(error).__name__})") from error
        if not done:
            raise result
        return result

    def stop(self) -> None:
        """See `Worker`."""
        self._ray.kill(self._actor)


class _Actor:
    """What runs on a node."""

    def __init__(self) -> None:
        self._job: Job[Any, Any] | None = None

    def prepare(self, make: Callable[[], Job[Any, Any]], token: Path, version: str) -> tuple[bool, Any]:
        """Check that this node sees what the driver sees, and make the job."""
        return outcome(lambda: self._prepare(make, token, version))

    def _prepare(self, make: Callable[[], Job[Any, Any]], token: Path, version: str) -> None:
        _check_storage(token, version)
        self._job = make()

    def work(self, item: Any) -> tuple[bool, Any]:
        """Do the job on an item."""
        job = self._job
        assert job is not None
        return outcome(lambda: job(item))


def _check_storage(token: Path, version: str) -> None:
    node = os.uname().nodename
    try:
        found = token.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"the Ray worker on {node} does not see {token.parent} ({error.strerror}); put it on storage that all "
            "nodes mount under this path"
        ) from error
    if found != version or __version__ != version:
        raise BadInput(f"the Ray worker on {node} has embodied_vision {__version__}, not {version}; install the same")


def _join(ray: Any, address: str, count: int) -> None:
    settings: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address == LOCAL:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        settings |= {"num_cpus": count, "include_dashboard": False, "object_store_memory": 100 * 1024 * 1024}
        folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
        if len(folder) > _SOCKET_PATH:
            settings["_temp_dir"] = "/tmp/ray"  # paths of sockets are short
    try:
        ray.init(address=address, **settings)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise BadInput(
            f"no Ray cluster can be used at {address!r} ({str(error).splitlines()[0]}); start one with "
            "`ray start --head`, or leave the address out to run on this machine"
        ) from error
