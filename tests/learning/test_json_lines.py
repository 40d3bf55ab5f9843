"""Files of JSON lines outlive a writer that was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from embodied_vision.errors import BadInput
from embodied_vision.learning import json_lines


def test_what_is_appended_is_read_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lines.jsonl"
    assert json_lines.read(path) == []
    records = [{"number": number, "text": "ä\n"} for number in range(3)]
    for record in records:
        json_lines.append(path, record)
    assert json_lines.read(path) == records


@pytest.mark.parametrize("kept", range(len('{"number": 2}') + 1))
def test_half_a_line_costs_only_itself(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "lines.jsonl"
    json_lines.append(path, {"number": 1})
    first = path.stat().st_size
    json_lines.append(path, {"number": 2})
    with open(path, "r+b") as file:
        file.truncate(first + kept)
    json_lines.append(path, {"number": 3})
    numbers = [record["number"] for record in json_lines.read(path)]
    assert numbers == ([1, 2, 3] if kept == len('{"number": 2}') else [1, 3])


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"file/lines\.jsonl cannot be written"):
        json_lines.append(tmp_path / "file" / "lines.jsonl", {})
