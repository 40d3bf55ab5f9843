"""The choice of a renderer is safe wherever libraries are missing, and quiet where they are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

from embodied_vision.errors import BadInput
from embodied_vision_sim import renderer
from embodied_vision_sim.renderer import FOUND, choose_renderer, egl_available


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not looked yet; what it finds is forgotten afterwards."""
    monkeypatch.setenv(FOUND, "")


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key != FOUND}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_machine_without_drivers_gets_software() -> None:
    """The plugin itself ends the process there."""
    done = _python(
        "from embodied_vision_sim.renderer import choose_renderer; print(choose_renderer('auto'))",
        __EGL_VENDOR_LIBRARY_FILENAMES=os.devnull,
    )
    assert (done.returncode, done.stdout) == (0, "software\n"), done.stderr


def test_asking_for_egl_there_is_refused_with_the_remedy() -> None:
    done = _python(
        "from embodied_vision_sim.world import World; World('block-insertion', renderer='egl')",
        __EGL_VENDOR_LIBRARY_FILENAMES=os.devnull,
    )
    assert done.returncode == 1
    assert "apt-get install libegl1 libgl1-mesa-dri" in done.stderr


def test_without_the_library_nothing_is_tried(monkeypatch: pytest.MonkeyPatch, unknown: None) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(renderer.ctypes, "CDLL", missing)
    monkeypatch.setattr(renderer.subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    assert choose_renderer("auto") == "software"
    with pytest.raises(BadInput, match="libegl1"):
        choose_renderer("egl")


@pytest.mark.parametrize(
    "fate",
    ["import os; os.abort()", "raise SystemExit(0)", "import time; time.sleep(60)"],
    ids=["dies", "ends", "hangs"],
)
def test_whatever_becomes_of_the_probe(monkeypatch: pytest.MonkeyPatch, unknown: None, fate: str) -> None:
    monkeypatch.setattr(renderer, "_egl_installed", lambda: True)
    monkeypatch.setattr(renderer, "_PROBE", fate)
    monkeypatch.setattr(renderer, "PROBE_TIMEOUT_S", 3.0)
    assert not egl_available()


def test_it_is_found_out_once(monkeypatch: pytest.MonkeyPatch, unknown: None) -> None:
    monkeypatch.setattr(renderer, "_egl_installed", lambda: False)
    assert choose_renderer("auto") == "software"
    assert os.environ[FOUND] == "0"
    monkeypatch.setattr(renderer, "_egl_installed", lambda: pytest.fail("looked again"))
    assert choose_renderer("auto") == "software"


def test_unknown_renderers_are_named() -> None:
    with pytest.raises(BadInput, match="'vulkan' is unknown; use one of auto, egl, software"):
        choose_renderer("vulkan")


def test_environments_say_who_draws() -> None:
    env = gymnasium.make("embodied_vision/BlockInsertion-v0")
    assert env.unwrapped.renderer == ("egl" if egl_available() else "software")  # type: ignore[attr-defined]
    env.close()


@pytest.fixture
def egl() -> None:
    """For tests about EGL alone."""
    if not egl_available():
        pytest.skip("EGL does not draw on this machine: libegl1 or a driver such as libgl1-mesa-dri is missing")


VECTOR = """
import gymnasium
from embodied_vision_sim.world import World
if __name__ == "__main__":
    {before}
    envs = gymnasium.make_vec(
        "embodied_vision_sim:embodied_vision/BlockInsertion-v0", num_envs=2, vectorization_mode="async", renderer="egl"
    )
    observation, _ = envs.reset(seed=[1, 2])
    print(observation["camera"]["color"].shape)
    envs.close()
"""


def test_forked_vectors_draw_with_egl(egl: None, tmp_path: Path) -> None:
    script = tmp_path / "vector.py"
    script.write_text(VECTOR.format(before=""), encoding="utf-8")
    done = _python(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')")
    assert (done.returncode, done.stdout) == (0, "(2, 240, 424, 3)\n"), done.stderr


def test_after_drawing_a_fork_is_refused_instead_of_waiting_forever(egl: None, tmp_path: Path) -> None:
    script = tmp_path / "vector.py"
    script.write_text(VECTOR.format(before="World('block-insertion', renderer='egl').reset(0)"), encoding="utf-8")
    done = _python(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')")
    assert done.returncode != 0
    assert "vector_kwargs={'context': 'spawn'}" in done.stderr


def test_the_plugin_keeps_off_the_output(egl: None) -> None:
    done = _python(
        "import json\n"
        "from embodied_vision_sim.world import World\n"
        "forgotten = World('block-insertion', renderer='egl')\n"
        "with World('block-insertion', renderer='egl') as world:\n"
        "    world.reset(0)\n"
        "    world.render()\n"
        "print(json.dumps({'renderer': world.renderer}))"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"renderer": "egl"}
