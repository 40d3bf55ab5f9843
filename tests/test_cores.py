import subprocess
import sys

import pytest
import torch

from embodied_vision.cores import use_cores

FAULTS_OF_BLOCKS = """
import ctypes, platform, resource, sys
from embodied_vision.cores import use_cores
if sys.argv[1] == "kept":
    use_cores(1)
library, size = ctypes.CDLL(None), 20 << 20
library.malloc.restype = ctypes.c_void_p
def work():
    blocks = [ctypes.c_void_p(library.malloc(ctypes.c_size_t(size))) for _ in range(4)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in reversed(blocks):
        library.free(block)
for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(platform.libc_ver()[0], resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> tuple[str, int]:
    ran = subprocess.run([sys.executable, "-c", FAULTS_OF_BLOCKS, how], capture_output=True, text=True, check=True)
    library, count = ran.stdout.split()
    return library, int(count)


def test_freed_memory_is_used_again() -> None:
    library, count = faults("kept")
    if library != "glibc":
        pytest.skip("memory is kept with glibc alone")
    assert count < 100
    assert faults("given back")[1] > 1000


def test_threads_of_an_operation() -> None:
    before = torch.get_num_threads()
    use_cores(2)
    assert torch.get_num_threads() == 2
    use_cores(before)
    assert torch.get_num_threads() == before
