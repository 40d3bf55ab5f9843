"""Where a result comes from: versions, commit, command."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("embodied_vision", "torch", "numpy", "scipy", "pybullet", "zarr")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str:
    """Commit of the checkout that this code runs from, with `-dirty` when files differ; empty outside of one."""
    folder = Path(__file__).resolve().parent
    arguments = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def command() -> str:
    """The command line of this process, as a user would type it."""
    return " ".join(["embodied-vision", *sys.argv[1:]])
