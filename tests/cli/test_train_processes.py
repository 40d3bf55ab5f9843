"""Training that is killed goes on as if nothing had been; two processes do the work of one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

from embodied_vision.cli.main import app
from embodied_vision.learning.stage import STAGES

PATIENCE_S = 250.0


@pytest.fixture
def arguments(demos: Path, tiny: Path) -> list[str]:
    """Of `train`, but for the output."""
    chosen = ["train", "--task", "block-insertion", "--episodes", str(demos), "--config", str(tiny)]
    return [*chosen, "--encoder", "none", "--save-every", "0", "--json"]


def main(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "embodied_vision.cli.main", *arguments]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoint" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def wait_until(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until something is true of a process that must not end before."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.002)


def steps_done(output: Path) -> list[int]:
    """Of the stages that have a state."""
    found = []
    for path in (output / "state" / f"{stage}.safetensors" for stage in STAGES):
        if path.is_file():
            with safe_open(path, framework="pt") as file:
                found.append(int(file.metadata()["step"]))
    return found


def test_killed_in_the_middle_and_resumed_it_ends_in_the_same_weights(arguments: list[str], tmp_path: Path) -> None:
    arguments += ["--steps", "24", "--batch", "1"]
    process = subprocess.Popen(
        main(*arguments, "--output", str(tmp_path / "killed")), stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: len(steps_done(tmp_path / "killed")) == len(STAGES), process)
    process.kill()
    process.communicate()
    assert all(0 < step < 24 for step in steps_done(tmp_path / "killed"))
    assert not (tmp_path / "killed" / "checkpoint").exists()
    ids = []
    for output, more in (("killed", ["--resume"]), ("whole", [])):
        done = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / output), *more], catch_exceptions=False)
        ids.append(json.loads(done.stdout)["checkpoint_id"])
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    assert ids[0] == ids[1]


def test_two_processes_with_half_of_each_batch_train_what_one_with_all_of_it_does(
    arguments: list[str], tmp_path: Path
) -> None:
    arguments += ["--steps", "3", "--batch", "4", "--output"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "embodied_vision.cli.main", *arguments, str(tmp_path / "two")]
    two = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert two.returncode == 0, two.stderr
    one = CliRunner().invoke(app, [*arguments, str(tmp_path / "one")], catch_exceptions=False)
    (figures,) = [json.loads(line) for line in two.stdout.splitlines()]
    expected = json.loads(one.stdout)
    assert (figures["processes"], expected["processes"]) == (2, 1)
    assert figures["losses"] == expected["losses"]
    assert same(weights(tmp_path / "two"), weights(tmp_path / "one"))


@pytest.mark.parametrize("killed", [0, 1])
def test_when_one_process_is_killed_the_other_says_so_and_ends(
    arguments: list[str], tmp_path: Path, killed: int
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        environment = {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        command = main(*arguments, "--steps", "100000", "--output", str(tmp_path / f"rank-{rank}"))
        processes.append(
            subprocess.Popen(
                command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    try:
        wait_until(lambda: bool(steps_done(tmp_path / "rank-0")), processes[killed])
        processes[killed].send_signal(signal.SIGKILL)
        output, complaint = processes[1 - killed].communicate(timeout=PATIENCE_S / 2)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert (processes[1 - killed].returncode, output) == (1, "")
    assert f"process {1 - killed} of 2 has lost the others" in " ".join(complaint.split())
    assert not (tmp_path / "rank-1").exists()
