"""What a process has loaded is left alone; what comes later and refers to itself does not stay, nor does its memory."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

_AT_WORK = """
import gc, json, weakref
from embodied_vision.collection import settle

class Ring:
    def __init__(self):
        self.itself = self

lasting = [[number] for number in range(300_000)]
gc.disable()
forgotten = weakref.ref(Ring())
gc.enable()
settle()
collected_at_once = forgotten() is None

alive, most, walked = set(), 0, 0
def count(phase, info):
    global walked
    walked = max(walked, len(gc.get_objects())) if phase == "start" and info["generation"] == 2 else walked
gc.callbacks.append(count)
for _ in range(200_000):
    ring = Ring()
    alive.add(id(ring))
    ring.at_end = weakref.finalize(ring, alive.discard, id(ring))
    ring.at_end.atexit = False
    most = max(most, len(alive))
print(json.dumps({"collected_at_once": collected_at_once, "most": most, "walked": walked}))
"""


def test_garbage_is_found_soon_and_what_lasts_is_not_looked_through() -> None:
    run = subprocess.run([sys.executable, "-c", _AT_WORK], capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    assert found["collected_at_once"]
    assert 0 < found["walked"] < 100_000, "300,000 objects last"
    assert found["most"] < 25_000


_PRIVATE_KB = """
import re
from pathlib import Path

def private_kb():
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"Private_(?:Clean|Dirty):\\s+(\\d+)", rollup))
"""

_TIDIED = """
import gc, json, weakref
from embodied_vision.allocation import keep_large_blocks
from embodied_vision.collection import settle, tidy

class Ring:
    def __init__(self):
        self.itself = self

keep_large_blocks()
settle()
gc.disable()
forgotten = weakref.ref(Ring())
before = private_kb()
freed, between = [], []
for _ in range(300):
    freed.append(bytearray(100_000))
    between.append(bytearray(1_000))
del freed
untidy = private_kb() - before
tidy(give_back=False)
kept = private_kb() - before
tidy(give_back=True)
print(json.dumps({"untidy": untidy, "kept": kept, "tidy": private_kb() - before, "collected": forgotten() is None}))
"""


def test_what_was_freed_between_blocks_in_use_goes_back_to_the_kernel() -> None:
    run = subprocess.run([sys.executable, "-c", _PRIVATE_KB + _TIDIED], capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    assert found["collected"]
    assert found["untidy"] > 25_000, "30 MB were freed, in pieces"
    assert found["kept"] > 25_000, "a process that keeps its pages does"
    assert found["tidy"] < 5_000


_THREAD = """
import json, sys, threading
from embodied_vision.allocation import keep_large_blocks, share_one_heap
from embodied_vision.collection import tidy

keep_large_blocks()
if sys.argv[1] == "one":
    share_one_heap()
before = private_kb()
done, end = threading.Event(), threading.Event()

def work():
    blocks = [bytearray(100_000) for _ in range(400)]
    del blocks
    done.set()
    end.wait()

threading.Thread(target=work, daemon=True).start()
done.wait()
tidy(give_back=True)
print(json.dumps(private_kb() - before))
"""


@pytest.mark.parametrize(("heaps", "kept_kb"), [("one", (0, 10_000)), ("as glibc has them", (20_000, 60_000))])
def test_what_a_thread_freed_goes_back_from_one_heap_and_stays_in_one_of_its_own(
    heaps: str, kept_kb: tuple[int, int]
) -> None:
    command = [sys.executable, "-c", _PRIVATE_KB + _THREAD, heaps]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert kept_kb[0] <= json.loads(run.stdout) <= kept_kb[1]


_TOUCHED = """
import json, sys
from embodied_vision.allocation import keep_large_blocks, share_one_heap
share_one_heap()
from embodied_vision.collection import settle, tidy

def heap_kb(kind):
    lines = iter(open("/proc/self/smaps"))
    next(line for line in lines if line.rstrip().endswith("[heap]"))
    return next(int(line.split()[1]) for line in lines if line.startswith(kind))

keep_large_blocks()
touch = {"settle": settle, "tidy": lambda: tidy(give_back=False)}[sys.argv[1]]
touch()
size, touched = heap_kb("Size:"), heap_kb("Rss:")
later = [bytearray(3_000) for _ in range(300)]
print(json.dumps({"size": size, "touched": touched, "later": heap_kb("Rss:")}))
"""


@pytest.mark.parametrize("step", ["settle", "tidy"])
def test_a_heap_that_was_touched_holds_what_comes_later(step: str) -> None:
    run = subprocess.run([sys.executable, "-c", _TOUCHED, step], capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    assert found["touched"] == found["size"]
    assert found["later"] == found["touched"], "900 kB more were asked for"
