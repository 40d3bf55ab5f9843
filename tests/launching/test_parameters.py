"""Wrong names and values in parameter files are refused before a process starts, each with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embodied_vision.errors import BadInput
from embodied_vision.launching.graph import CAMERA, CELL, PARAMETERS, GraphConfig
from embodied_vision.launching.parameters import Declared, Setting, check_files, declared, faults, read_params_file

NODES = [node.name for node in CELL]


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "params.yaml"
        path.write_text(text)
        return path

    return write


def test_the_shipped_file_is_without_fault() -> None:
    settings = read_params_file(PARAMETERS)
    assert len(settings) > 50
    assert faults(settings, NODES) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "/**/arm:\n  ros__parameters:\n    sped: 0.5\n",
            r"params.yaml:3: /\*\*/arm: sped: node 'arm' has no .*speed\?",
        ),
        (
            "/**/arm:\n  ros__parameters:\n    speed: 1.5\n",
            r"yaml:3: /\*\*/arm: speed must lie between 0.05 and 1, not 1",
        ),
        ("/**/arm:\n  ros__parameters:\n    speed: .nan\n", r"between 0.05 and 1, not nan"),
        ("/**/arm:\n  ros__parameters:\n    speed: 1\n", r"a number with a decimal point, not 1; write 1.0"),
        ("/**/arm:\n  ros__parameters:\n    robot: true\n", r"robot must be a string, not true"),
        ("/**/arm:\n  ros__parameters:\n    cameras: [a, 1]\n", r'must be a list of strings, not \["a", 1\]'),
        ("/**/arm:\n  ros__parameters:\n    cameras:\n", r"must be a list of strings, not null"),
        ("/left/arm:\n  ros__parameters:\n    sped: 0.5\n", r"/left/arm: sped"),
        ("left:\n  arm:\n    ros__parameters:\n      sped: 0.5\n", r"params.yaml:4: /left/arm: sped"),
        ("arm:\n  ros__parameters:\n    limits: {a: 1}\n", r"/arm: limits.a: node 'arm' has no such parameter"),
        ("/**/arn:\n  ros__parameters:\n    speed: 0.5\n", r"there is no node 'arn'; did you mean arm\?"),
        ("/**:\n  ros__parameters:\n    autostrat: false\n", r"no node has such a parameter; did you mean autostart\?"),
        ("/**:\n  ros__parameters:\n    autostart: 1\n", r"autostart must be true or false, not 1"),
        ("/**/task:\n  ros__parameters:\n    scenes: 0\n", r"scenes must lie between 1 and 1e\+06, not 0"),
        ("/**/camera:\n  ros__parameters:\n    rate: 500.0\n", r"rate must lie between"),
        (
            "/**:\n  ros__parameters:\n    executor: fast\n",
            r"yaml:3: /\*\*: executor must be one of single, events, not",
        ),
        (
            "/**/arm:\n  ros__parameters:\n    speed: 0.5\n    speed: 0.6\n",
            r"yaml:4: speed stands twice, first in line 3",
        ),
        ("/**/arm:\n  ros__parameters:\n    speed: [0.5\n", r"params.yaml:4:1: "),
        ("/**/arm: 3\n", r"params.yaml:1: /\*\*/arm holds no keys"),
        ("ros__parameters:\n  speed: 0.5\n", r"must stand below a node"),
        ("- 1\n", r"the file holds no keys"),
    ],
)
def test_a_fault_names_its_place_and_the_remedy(written: Any, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        GraphConfig(CELL, tmp_path, params_files=(PARAMETERS, written(text)))


def test_all_faults_of_all_files_are_told_at_once(written: Any) -> None:
    path = written(
        "/**/arm:\n  ros__parameters: {sped: 1.0, lead: 7.0}\n/**/policy:\n  ros__parameters: {slop: -1.0}\n"
    )
    with pytest.raises(BadInput) as caught:
        check_files([path], NODES)
    assert [line.split(": ")[2].split()[0] for line in str(caught.value).splitlines()] == ["sped", "lead", "slop"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/**/arm:\n  ros__parameters: {speed: 0.5, use_sim_time: true}\n",
        "/right/*:\n  ros__parameters: {autostart: false}\n",
        "/**:\n  ros__parameters: {store: elsewhere, qos_overrides./tf.publisher.depth: 5}\n",
        "/**/camera:\n  ros__parameters: {source: pictures}\n",
        "/**/task:\n  ros__parameters: {seeds: []}\n",
    ],
)
def test_what_ros_takes_is_taken(written: Any, tmp_path: Path, text: str) -> None:
    GraphConfig(CELL, tmp_path, params_files=(written(text),))


def test_nodes_of_others_are_known_where_they_are_started(written: Any) -> None:
    path = written("/**/gripper_driver:\n  ros__parameters: {port: 7}\n")
    check_files([path], [*NODES, "gripper_driver"])
    with pytest.raises(BadInput, match="no node 'gripper_driver'"):
        check_files([path], NODES)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="cannot be read"):
        GraphConfig(CAMERA, tmp_path, params_files=(tmp_path / "params.yaml",))


@pytest.mark.parametrize(
    ("section", "node", "held"),
    [
        ("/**", "/left/arm", True),
        ("/**/arm", "/arm", True),
        ("/**/arm", "/a/b/arm", True),
        ("/*/arm", "/left/arm", True),
        ("/*/arm", "/arm", False),
        ("/left/arm", "/right/arm", False),
        ("/left/*", "/left/arm", True),
    ],
)
def test_sections_match_as_in_ros(section: str, node: str, held: bool) -> None:
    assert Setting(Path(), 1, section, "speed", 0.5).holds_for(node) is held


def test_bounds_are_inclusive() -> None:
    parameter = Declared("speed", "double", 1.0, "", (0.05, 1.0))
    assert [parameter.fault(value) for value in (0.05, 1.0)] == [None, None]


def test_every_parameter_is_described() -> None:
    assert [
        (node, name) for node, all_ in declared().items() for name, one in all_.items() if not one.description
    ] == []
