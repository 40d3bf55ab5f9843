"""Closed episodes are judged by a classifier of outcomes, in a process of the lowest priority."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from embodied_vision.nodes.lifecycle import ManagedNode

_MOST_AT_ONCE = 50


class Judging:
    """Starts `embodied-vision learn outcomes label` for what was closed meanwhile, one process at a time."""

    def __init__(self, node: ManagedNode) -> None:
        """Declare the parameter on a node that is being made."""
        node.param(
            "outcome_classifier",
            "",
            "folder of a classifier that judges closed episodes, see docs/outcomes.md; empty for none",
            read_only=True,
        )
        self._node = node
        self._waiting: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None

    def closed(self, episode_id: str) -> None:
        """An episode was closed."""
        if self._node.value("outcome_classifier"):
            self._waiting.append(episode_id)

    def look(self, store: Path) -> None:
        """Start the next process, when the one before has ended."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            self._report(self._process.returncode)
            self._process = None
        if not self._waiting:
            return
        ids, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
        classifier = str(Path(self._node.value("outcome_classifier")).expanduser())
        verb = ["learn", "outcomes", "label", "--classifier", classifier, "--store", str(store)]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 closed when the process has ended
        self._process = subprocess.Popen(
            ["nice", "-n", "19", sys.executable, "-m", "embodied_vision.cli.main", *verb, *ids],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def _report(self, code: int) -> None:
        assert self._said is not None
        with self._said as said:
            said.seek(0)
            words = said.read()[-2000:].decode(errors="replace").strip()
        if code:
            self._node.get_logger().error(f"episodes were not judged, exit code {code}: {words}")
