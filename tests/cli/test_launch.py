"""`embodied-vision launch`, started in a shell and ended by a signal as its users do."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from typer.testing import CliRunner

from embodied_vision.cli.launch import app
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import BadInput
from embodied_vision.launching.graph import GraphConfig

COMMAND = [sys.executable, "-m", "embodied_vision.cli.main", "launch"]
START_S = 120.0


def test_what_cannot_work_is_refused_before_anything_starts(tmp_path: Path) -> None:
    wrong = (
        (["cell", "--params-file", "none.yaml"], "none.yaml does not exist"),
        (["trigger", str(tmp_path), "arm/stop"], "environment.sh does not exist"),
    )
    for arguments, message in wrong:
        result = CliRunner().invoke(
            app, [*arguments, *(["--run-dir", str(tmp_path)] if arguments[0] == "cell" else [])]
        )
        assert isinstance(result.exception, BadInput)
        assert message in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_the_link_to_the_policy_in_use_stays_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it leads to by then is loaded before each decision."""
    (tmp_path / "policy").mkdir()
    (tmp_path / "current").symlink_to("policy")
    monkeypatch.chdir(tmp_path)
    watched: list[GraphConfig] = []
    monkeypatch.setattr("embodied_vision.cli.launch._watch", lambda config, *_: watched.append(config))
    result = CliRunner().invoke(app, ["cell", "--policy", "current", "--encoder", "default"], catch_exceptions=False)
    assert result.exit_code == 0
    assert watched[0].parameters["policy"]["checkpoint"] == f"{tmp_path}/current"
    assert watched[0].parameters["policy"]["encoder"] == "default"


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of pictures of several sizes."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("astronaut", "chelsea", "coffee"):
        Image.fromarray(np.asarray(getattr(skimage.data, name)())).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def launched(tmp_path: Path, photographs: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`launch camera` on photographs in a namespace, and its output."""
    arguments = ["camera", "--source", str(photographs), "--resize", "--namespace", "bench", "--rate", "5"]
    arguments += ["--store", str(tmp_path / "episodes"), "--run-dir", str(tmp_path / "run")]
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen([*COMMAND, *arguments], stdout=file, stderr=subprocess.STDOUT)
    yield process, output
    process.kill()
    process.wait()


@pytest.mark.system
def test_photographs_are_encoded_and_logged_until_the_signal(
    launched: tuple[subprocess.Popen[bytes], Path], tmp_path: Path
) -> None:
    process, output = launched
    episode = re.compile(r"^[0-9a-f]{8}-[0-9a-f-]{27}$", re.MULTILINE)
    deadline = time.monotonic() + START_S
    while not episode.search(output.read_text()):
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.1)
    staging = tmp_path / "episodes" / "staging"
    while not any(path.is_file() and path.stat().st_size > 100_000 for path in staging.rglob("*")):
        assert time.monotonic() < deadline, "no frames are written"
        time.sleep(0.1)
    stop = [*COMMAND, "trigger", str(tmp_path / "run"), "recorder/stop"]
    done = subprocess.run(stop, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == episode.search(output.read_text()).group(0)  # type: ignore[union-attr]
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, output.read_text()
    store = EpisodeStore(tmp_path / "episodes")
    assert [report.ok for report in verify(store)] == [True]
    logged = store.open(done.stdout.strip())
    assert logged.encoder_id.startswith("compact-")
    frames = logged.frames("camera")
    assert len(frames) >= 3
    assert frames[0].color.std() > 20
