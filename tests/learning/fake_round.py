"""`python -m learning.fake_round SPEC`: stands for a round of learning; the environment says how it goes."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from embodied_vision.learning.learner_priority import give_way


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(spec["policies"])
    with open(folder / "rounds.txt", "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()} {spec['task']}\n")
    how = (folder / "how.txt").read_text(encoding="utf-8")
    print("a library says something", flush=True)
    print(json.dumps({"phase": "training", "done": 1, "total": 2}), flush=True)
    if how == "give way":
        give_way()
        how = json.dumps([os.nice(0), os.sched_getscheduler(0)])
    if how == "hang":
        time.sleep(60)
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "half":
        sys.stdout.write('{"outcome": {"deci')
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "full":
        print(json.dumps({"error": "the disk is full; free space"}), flush=True)
        sys.exit(1)
    print(json.dumps({"outcome": {"task": spec["task"], "decision": how, "reason": "so it was told"}}), flush=True)


if __name__ == "__main__":
    main()
