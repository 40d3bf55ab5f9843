"""Who draws the pictures: PyBullet's EGL plugin where the machine has it, its software renderer otherwise.

The software renderer gives the same pixels on every machine, EGL on the same machine and driver.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from typing import Literal, get_args

import pybullet

from embodied_vision.errors import BadInput, RunFailed

Renderer = Literal["egl", "software"]
RENDERERS = ("auto", *get_args(Renderer))
PLUGIN, SYMBOL = "eglRenderer", "_eglRendererPlugin"
FOUND = "EMBODIED_VISION_EGL"
"""Environment variable by which a process tells its children what it found: 1 or 0."""
PROBE_TIMEOUT_S = 60.0

_loaded_in: set[int] = set()
"""Processes, this one and those that it was forked from, that have loaded the plugin."""
_Context = tuple[int | None, int | None, int | None]
"""Display, surface and context."""
_DRAW = 0x3059  # EGL_DRAW
_DRAWN = "EGL has drawn"
_PROBE = f"""
import pybullet
from embodied_vision_sim.renderer import Egl
Egl(pybullet.connect(pybullet.DIRECT)).close()
print({_DRAWN!r})
"""


def choose_renderer(renderer: str) -> Renderer:
    """What `auto` means on this machine; `egl` and `software` mean themselves.

    Raises:
        BadInput: unknown, or EGL that is not there.
    """
    if renderer not in RENDERERS:
        raise BadInput(f"renderer {renderer!r} is unknown; use one of {', '.join(RENDERERS)}")
    if renderer == "software":
        return "software"
    if egl_available():
        return "egl"
    if renderer == "egl":
        raise BadInput(
            "EGL does not draw on this machine; install its libraries (Debian: apt-get install libegl1 "
            "libgl1-mesa-dri) or use the renderer software or auto"
        )
    return "software"


def egl_available() -> bool:
    """Whether EGL draws here; found out once for a process and all its children.

    The plugin ends the process that loads it where a library or a driver is missing, so another one tries.
    """
    if os.environ.get(FOUND) not in ("0", "1"):
        os.environ[FOUND] = str(int(_egl_installed() and _egl_draws()))
    return os.environ[FOUND] == "1"


def _egl_installed() -> bool:
    if not sys.platform.startswith("linux") or importlib.util.find_spec(PLUGIN) is None:
        return False
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        return False
    return True


def _egl_draws() -> bool:
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return probe.returncode == 0 and probe.stdout.endswith(f"{_DRAWN}\n")


class Egl:
    """The plugin in one PyBullet client, with a drawing context of its own.

    The plugin makes its context current when it is loaded and never again: with several worlds in one process every
    one would draw into the newest. So whoever draws, or adds and removes bodies, calls `enter` before.

    Args:
        client: PyBullet client; it draws with the plugin alone from now on.

    Raises:
        RunFailed: the plugin cannot be loaded, or the process was forked from one that had loaded it: the driver's
            threads are missing here, and drawing would wait for them forever.
    """

    def __init__(self, client: int) -> None:
        if _loaded_in and os.getpid() not in _loaded_in:
            raise RunFailed(
                f"process {os.getpid()} was forked from one that draws with EGL and cannot draw with it itself; start "
                "processes by spawn (make_vec: vector_kwargs={'context': 'spawn'}) or use the renderer software"
            )
        _loaded_in.add(os.getpid())
        self._egl = ctypes.CDLL("libEGL.so.1")
        for name in ("eglGetCurrentDisplay", "eglGetCurrentSurface", "eglGetCurrentContext"):
            getattr(self._egl, name).restype = ctypes.c_void_p
        self._egl.eglMakeCurrent.argtypes = [ctypes.c_void_p] * 4
        spec = importlib.util.find_spec(PLUGIN)
        with _silence():
            self._plugin: int = pybullet.loadPlugin(spec.origin if spec else "", SYMBOL, physicsClientId=client)
            if self._plugin >= 0:
                for _ in range(2):  # shaders are compiled, and talked about, in the first two pictures
                    pybullet.getCameraImage(8, 8, physicsClientId=client)
        if self._plugin < 0:
            raise RunFailed("PyBullet's EGL plugin cannot be loaded; use the renderer software")
        display, context = self._egl.eglGetCurrentDisplay(), self._egl.eglGetCurrentContext()
        self._current = (display, self._egl.eglGetCurrentSurface(_DRAW), context)
        self.close = weakref.finalize(self, _unload, self._egl, self._current, self._plugin, client)
        """Unload the plugin, before the client disconnects; done at the process's end at the latest."""

    def enter(self) -> None:
        """Make this client's context the current one of the calling thread.

        Raises:
            RunFailed: another thread is drawing with it.
        """
        if not _enter(self._egl, self._current):
            raise RunFailed(
                "this world's EGL context belongs to another thread; use a world in the thread that made it, "
                "or the renderer software"
            )


def _enter(egl: ctypes.CDLL, current: _Context) -> bool:
    display, surface, context = current
    return bool(egl.eglGetCurrentContext() == context or egl.eglMakeCurrent(display, surface, surface, context))


def _unload(egl: ctypes.CDLL, current: _Context, plugin: int, client: int) -> None:
    _enter(egl, current)
    with _silence(), contextlib.suppress(pybullet.error):  # a client that is gone took its plugin along
        pybullet.unloadPlugin(plugin, physicsClientId=client)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the plugin's chatter off stdout and stderr, where scripts read JSON."""
    libc = ctypes.CDLL(None)
    sys.stdout.flush()
    sys.stderr.flush()
    libc.fflush(None)
    saved = [(target, os.dup(target)) for target in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for target, _ in saved:
            os.dup2(nowhere, target)
        yield
    finally:
        libc.fflush(None)
        for target, copy in saved:
            os.dup2(copy, target)
            os.close(copy)
        os.close(nowhere)
