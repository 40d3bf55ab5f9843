"""The same seed gives the same episode, bit for bit, in every process and with the kernels of other processors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embodied_vision_sim.renderer import egl_available
from tests.sim import golden

FILE = Path(__file__).with_name("golden.json")
# NumPy and OpenBLAS choose their loops by the processor; this makes them take those of one without AVX.
OLD_PROCESSOR = {
    "OPENBLAS_CORETYPE": "Prescott",
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX2 FMA3",
}


def _elsewhere(tasks: list[str], environment: dict[str, str], renderer: str = "software") -> dict[str, dict[str, str]]:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", golden.__file__, "--renderer", renderer, *tasks],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    result: dict[str, dict[str, str]] = json.loads(run.stdout[run.stdout.index("{") :])
    return result


@pytest.mark.parametrize("task", sorted(golden.ALL_IDS))
def test_states_and_pictures_are_those_of_every_machine(task: str) -> None:
    assert golden.digests([task])[task] == json.loads(FILE.read_text())[task]


def test_the_kernels_of_another_processor_change_nothing() -> None:
    tasks = ["GraspDiverseClosedLoop-v0", "manipulating-rope", "place-red-in-green", "towers-of-hanoi"]
    known = json.loads(FILE.read_text())
    assert _elsewhere(tasks, OLD_PROCESSOR) == {task: known[task] for task in tasks}


@pytest.mark.skipif(not egl_available(), reason="EGL draws nothing on this machine: libegl1 or its driver is missing")
def test_pictures_by_egl_are_the_same_in_every_process_of_a_machine() -> None:
    assert _elsewhere(["block-insertion"], {}, "egl") == golden.digests(["block-insertion"], "egl")
