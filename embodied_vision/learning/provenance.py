"""Where a result comes from: versions, commit, command."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

SCENE_CODE = ("types.py", "geometry.py", "policies", "encoders", "control", "robots")
"""What of this package runs a scene, besides the simulator."""
HERE = Path(__file__).resolve().parent
WRITTEN_BY_MEASURING = ("results", "docs")
"""Folders at the top of the checkout."""
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


def git_commit(folder: Path = HERE) -> str:
    """Commit of the checkout that holds a folder, with `-dirty` when its files differ; empty outside of one.

    What measuring itself writes does not count.
    """
    excluded = [f":(top,exclude){name}" for name in WRITTEN_BY_MEASURING]
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ":/", *excluded)
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{commit}-dirty" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def command() -> str:
    """The command line of this process, as a user would type it."""
    return " ".join(["embodied-vision", *sys.argv[1:]])


def scene_code(simulator: str) -> str:
    """16 hex digits that name the sources which decide how a policy's scene goes.

    Args:
        simulator: name of the package that holds the environments, which is part of them where it is installed.
    """
    package = Path(__file__).resolve().parent.parent
    roots = [package / name for name in SCENE_CODE]
    found = importlib.util.find_spec(simulator)
    roots += [Path(folder).resolve() for folder in (found.submodule_search_locations or ())] if found else []
    digest = hashlib.sha256()
    for root in roots:
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if path.suffix in {".py", ".yaml", ".urdf"}:
                digest.update(f"{root.name}/{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
