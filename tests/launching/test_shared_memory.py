"""Only shared memory that no living process holds is removed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from embodied_vision.launching.shared_memory import abandoned, clean_stale, stale

HOLD = """
import fcntl, sys
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""

MAP = """
import mmap, sys
file = open(sys.argv[1])
held = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
print("held", flush=True)
sys.stdin.read()
"""


def holding(program: str, path: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def segment(folder: Path, name: str) -> list[Path]:
    """A segment as Fast DDS leaves it: memory and lock file."""
    files = [folder / f"fastdds_{name}", folder / f"fastdds_{name}_el"]
    files[0].write_bytes(b"\0" * 8192)
    files[1].touch()
    return files


def test_segments_of_the_living_stay_and_those_of_the_dead_go(tmp_path: Path) -> None:
    living, dead = segment(tmp_path, "living"), segment(tmp_path, "dead")
    port = [tmp_path / n for n in ("fastdds_port7411", "fastdds_port7411_el", "sem.fastdds_port7411_mutex")]
    for file in port:
        file.touch()
    other = tmp_path / "of_another_program"
    other.touch()
    with holding(HOLD, living[1]) as owner:
        assert set(stale(tmp_path, young_s=0.0)) == {*dead, *port}
        assert clean_stale(tmp_path, young_s=0.0) >= 8192
        assert sorted(tmp_path.iterdir()) == sorted([*living, other])
        owner.kill()
        owner.wait()
    clean_stale(tmp_path, young_s=0.0)
    assert list(tmp_path.iterdir()) == [other]


def test_a_brand_new_file_stays_because_its_owner_may_not_have_locked_it_yet(tmp_path: Path) -> None:
    segment(tmp_path, "new")
    assert stale(tmp_path) == []


def test_a_machine_without_shared_memory_has_nothing_stale(tmp_path: Path) -> None:
    assert stale(tmp_path / "none") == []


def test_a_port_is_abandoned_while_only_writers_have_it(tmp_path: Path) -> None:
    port, lock = segment(tmp_path, "port7667_of_a_test")
    with holding(MAP, port) as writer:
        with holding(HOLD, lock) as owner:
            assert port.name not in abandoned(tmp_path)
            owner.kill()
            owner.wait()
            assert port.name in abandoned(tmp_path)
        lock.unlink()  # who finds the owner dead removes its lock
        assert port.name in abandoned(tmp_path)
        writer.kill()
        writer.wait()
    assert port.name not in abandoned(tmp_path)
