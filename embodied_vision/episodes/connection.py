"""One URL's object store: how it is opened through `obstore`, and how its failures become those of a disk."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from embodied_vision.errors import BadInput

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_MESSAGE = re.compile(r"<Message>(.*?)</Message>", re.DOTALL)
_DENIED = re.compile(r"non-2xx status code: 40[13]\b")
_CLIENT: dict[str, Any] = {"connect_timeout": "5s", "timeout": "60s"}
_RETRY: dict[str, Any] = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=5), "base": 2},
}


class Connection:
    """One URL's object store, opened at the first request; several threads may share it.

    Args:
        url: without a slash at its end.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def store(self) -> ObjectStore:
        """The store of `obstore`; keys are relative to the URL.

        Raises:
            BadInput: obstore cannot use such a URL.
            OSError: this process was forked from one that used a store.
        """
        _check_process(self.url)
        return self._opened

    @cached_property
    def _opened(self) -> ObjectStore:
        from obstore import exceptions, store

        plain = self.url.startswith("http://") or os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
        options: dict[str, Any] = {}
        if not self.url.startswith(("file:", "memory:")):
            options = {"client_options": {**_CLIENT, "allow_http": plain}, "retry_config": _RETRY}
        if self.url.startswith("s3"):
            options["checksum_algorithm"] = "SHA256"  # the server refuses what was damaged on the way
        url = self.url + "/" if self.url.startswith("memory:") else self.url
        try:
            return store.from_url(url, **options)
        except (exceptions.BaseError, ValueError) as error:
            raise BadInput(f"{self.url} cannot be used as object storage: {_brief(error)}") from error

    @cached_property
    def lists(self) -> bool:
        """Whether the store can tell what it holds; plain HTTP servers cannot."""
        return not self.url.startswith(("http://", "https://"))


@lru_cache(maxsize=64)
def connect(url: str) -> Connection:
    """The connection of a URL, one a process.

    Raises:
        BadInput: obstore is not installed.
    """
    try:
        import obstore  # noqa: F401
    except ImportError as error:
        raise BadInput(f"{url} needs the package obstore: pip install 'embodied-vision[remote]'") from error
    return Connection(url)


@contextmanager
def errors(place: object) -> Iterator[None]:
    """Whatever `obstore` raises, as an OSError that names the place."""
    from obstore import exceptions

    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise OSError(errno.ENOTDIR, _brief(error), str(place)) from error
        raise FileNotFoundError(errno.ENOENT, "no such object", str(place)) from error
    except exceptions.PreconditionError as error:
        raise OSError(errno.ESTALE, "replaced since the episode was opened", str(place)) from error
    except exceptions.BaseError as error:
        denied = isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError)
        if denied or _DENIED.search(str(error)):  # lists are refused by a general error
            hint = "permission denied; check the credentials in the environment"
            raise PermissionError(errno.EACCES, f"{hint}: {_brief(error)}", str(place)) from error
        raise OSError(errno.EIO, _brief(error), str(place)) from error


def _brief(error: BaseException) -> str:
    """What a server says, without the pages that stand around it."""
    text = str(error)
    message = _MESSAGE.search(text)
    return (message[1] if message else text.partition("\n")[0]).strip()[:300]


_process: list[int] = []


def _check_process(url: str) -> None:
    """The network threads of `obstore` do not live on in a forked process: a request there would never end."""
    if not _process:
        _process.append(os.getpid())
    if _process[0] != os.getpid():
        raise OSError(
            errno.EDEADLK, "used before this process was forked; start workers with `spawn` or `forkserver`", url
        )
