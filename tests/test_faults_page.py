"""docs/faults.md says what the tests of faults hold the graph to."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

from tests.system.faults_table import ALL, FAULTS, PAGE, report, with_table


def test_the_page_has_the_table_of_the_tests() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "run python -m tests.system.faults_table --write"


def test_a_fault_that_was_not_tried_is_named() -> None:
    lines = [json.dumps({"fault": fault.name, "halt_s": 0.1, "stands_s": 0.3}) for fault in FAULTS[1:]]
    text, untried = report(lines)
    assert untried == [FAULTS[0].name]
    assert len(text.splitlines()) == len(FAULTS) + 1


def test_names_are_told_apart() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_every_fault_has_its_test_and_every_test_its_fault() -> None:
    files = [str(PAGE.parents[1] / "tests" / "system" / name) for name in ("test_faults.py", "test_faults_apart.py")]
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "--noconftest", *files]
    listed = subprocess.run(
        command, env={**os.environ, ALL: "all"}, capture_output=True, text=True, cwd=PAGE.parents[1]
    )
    assert sorted(re.findall(r"\[([a-z ]+)\]$", listed.stdout, re.M)) == sorted(fault.name for fault in FAULTS)
