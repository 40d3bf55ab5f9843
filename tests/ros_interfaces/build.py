"""Builds the interface package `control_msgs` from the .msg and .action files beside this script, for tests.

The package is not on PyPI. What is built speaks the same types on the wire as ros2_control does; it is for
development and CI alone, and the product never needs it. Usage, in the environment with the ROS wheels:

    python tests/ros_interfaces/build.py            # builds into .cache/control_msgs when anything changed, prints it
    PYTHONPATH=.cache/control_msgs python -c "from control_msgs.action import FollowJointTrajectory"

PYTHONPATH is all that a process needs. The rosidl generators of the wheels write the sources, gcc and g++ compile
them into one extension module. It holds the type support of Fast DDS alone, so nothing is looked up at run time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = "control_msgs"
TYPESUPPORT = "rosidl_typesupport_fastrtps_c"
DEPENDENCIES = (
    "action_msgs",
    "builtin_interfaces",
    "geometry_msgs",
    "sensor_msgs",
    "service_msgs",
    "std_msgs",
    "trajectory_msgs",
    "unique_identifier_msgs",
)
LIBRARIES = (
    "fastcdr",
    "rcutils",
    "rosidl_runtime_c",
    "rosidl_typesupport_c",
    "rosidl_typesupport_fastrtps_c",
    "rosidl_typesupport_fastrtps_cpp",
)
DEFAULT = HERE.parents[1] / ".cache" / PACKAGE

Sources = list[Path]


def build(target: Path = DEFAULT) -> Path:
    """Make `target` a folder from which `control_msgs` can be imported, and return it.

    Raises:
        SystemExit: generators, compilers or headers are missing, or one of them failed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_name(f"{target.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        digest = _digest()
        stamp = target / "digest.txt"
        if not (stamp.is_file() and stamp.read_text(encoding="utf-8") == digest):
            _build(target, digest)
    return target


def _build(target: Path, digest: str) -> None:
    for compiler in ("gcc", "g++"):
        if shutil.which(compiler) is None:
            raise SystemExit(f"{compiler} was not found; install it (Debian: apt-get install g++)")
    staging = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        work = staging / "work"
        interfaces = _translate(work)
        sources = _generate(work, interfaces)
        shutil.copytree(work / "py" / PACKAGE, staging / PACKAGE, ignore=shutil.ignore_patterns("*.c"))
        (staging / PACKAGE / "__init__.py").touch()
        _compile(work, sources, staging / PACKAGE / f"{PACKAGE}_s__rosidl_typesupport_c.so")
        shutil.rmtree(work)
        (staging / "digest.txt").write_text(digest, encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _digest() -> str:
    """Of everything that the result depends on."""
    digest = hashlib.sha256(f"{sys.prefix} {sys.version}".encode())
    site = Path(sysconfig.get_path("purelib"))
    for path in [Path(__file__), *_interface_files(), *sorted(site.glob("ros_rosidl_generator_*/METADATA"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _interface_files() -> list[Path]:
    return sorted((HERE / PACKAGE).glob("*/*.*"))


def _share(package: str) -> Path:
    return Path(sys.prefix) / "share" / package


def _tool(package: str, arguments: Sequence[str]) -> None:
    """Run a generator of the wheels as its CMake package does."""
    script = Path(sys.prefix) / "lib" / package / package
    if not script.is_file():
        raise SystemExit(f"{script} is missing; install the ROS wheels (the `ros` extra) into this environment")
    _run([sys.executable, str(script), *arguments])


def _run(command: list[str]) -> None:
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {run.returncode}:\n{run.stdout}{run.stderr}")


def _translate(work: Path) -> list[str]:
    """Translate .msg and .action to .idl; returns `folder/Name.idl` of each."""
    arguments = work / "adapter.json"
    work.mkdir(parents=True)
    files = [f"{HERE / PACKAGE}:{path.relative_to(HERE / PACKAGE)}" for path in _interface_files()]
    arguments.write_text(json.dumps({"non_idl_tuples": files}), encoding="utf-8")
    command = [sys.executable, "-m", "rosidl_adapter", "--package-name", PACKAGE, "--arguments-file", str(arguments)]
    _run([*command, "--output-dir", str(work / "idl" / PACKAGE), "--output-file", str(work / "idl.txt")])
    return [line.rsplit(":", 1)[1] for line in (work / "idl.txt").read_text(encoding="utf-8").splitlines()]


def _generate(work: Path, interfaces: list[str]) -> Sources:
    """Write all sources; returns those to compile."""
    idl = work / "idl" / PACKAGE
    tuples = [f"{idl}:{name}" for name in interfaces]
    descriptions = work / "descriptions" / PACKAGE
    common = {
        "package_name": PACKAGE,
        "idl_tuples": tuples,
        "target_dependencies": [str(idl / name) for name in interfaces],
        "ros_interface_dependencies": [],
    }

    def arguments(name: str, **more: object) -> str:
        path = work / f"{name}.json"
        path.write_text(json.dumps({**common, **more}), encoding="utf-8")
        return str(path)

    def generate(generator: str, folder: str, *options: str, **more: object) -> None:
        templates = str(_share(generator) / "resource")
        file = arguments(generator, output_dir=str(work / folder / PACKAGE), template_dir=templates, **more)
        _tool(generator, ["--generator-arguments-file", file, *options])

    include_paths = [f"{name}:{_share(name)}" for name in DEPENDENCIES]
    hashes = arguments("descriptions", output_dir=str(descriptions), include_paths=include_paths)
    _tool("rosidl_generator_type_description", ["--generator-arguments-file", hashes])
    described = [f"{name}:{descriptions / Path(name).with_suffix('.json')}" for name in interfaces]
    generate("rosidl_generator_c", "c", type_description_tuples=described, ros_interface_files=[])
    generate(TYPESUPPORT, "fastrtps")
    generate("rosidl_typesupport_c", "typesupport", "--typesupports", TYPESUPPORT)
    generate("rosidl_generator_py", "py", "--typesupport-impls", "rosidl_typesupport_c")
    for generator, folder in (("rosidl_generator_c", "c"), (TYPESUPPORT, "fastrtps")):
        name = f"{generator}__visibility_control.h"
        text = (_share(generator) / "resource" / f"{name}.in").read_text(encoding="utf-8")
        text = text.replace("@PROJECT_NAME_UPPER@", PACKAGE.upper()).replace("@PROJECT_NAME@", PACKAGE)
        (work / folder / PACKAGE / "msg" / name).write_text(text, encoding="utf-8")
    return sorted(path for kind in ("*.c", "*.cpp") for path in work.glob(f"*/{PACKAGE}/**/{kind}"))


def _compile(work: Path, sources: Sources, module: Path) -> None:
    import numpy as np

    prefix = Path(sys.prefix)
    folders = [work / name for name in ("c", "fastrtps", "typesupport", "py")]
    folders += [prefix / "include", *sorted(path for path in (prefix / "include").iterdir() if path.is_dir())]
    folders += [Path(sysconfig.get_path("include")), Path(np.get_include())]
    flags = ["-O2", "-fPIC", *(f"-I{folder}" for folder in folders)]

    def compile_one(source: Path) -> str:
        compiler = ["g++", "-std=c++17"] if source.suffix == ".cpp" else ["gcc", "-std=gnu11"]
        output = f"{source}.o"
        _run([*compiler, *flags, "-c", str(source), "-o", output])
        return output

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, sources))
    kinds = ("rosidl_generator_c", "rosidl_generator_py", "rosidl_typesupport_c", TYPESUPPORT)
    libraries = [f"-l{package}__{kind}" for package in DEPENDENCIES for kind in kinds]
    libraries += [f"-l{name}" for name in LIBRARIES]
    where = [f"-L{prefix / 'lib'}", f"-Wl,-rpath,{prefix / 'lib'}", "-Wl,--no-as-needed"]
    _run(["g++", "-shared", *objects, *where, *libraries, "-o", str(module)])


if __name__ == "__main__":
    print(build(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else DEFAULT))
