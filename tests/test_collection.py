"""What a process has loaded is left alone; what comes later and refers to itself does not stay."""

from __future__ import annotations

import json
import subprocess
import sys

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
