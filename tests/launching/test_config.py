"""config/cell.yaml names every parameter of every node, with the defaults of the code and a comment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from embodied_vision.errors import BadInput
from embodied_vision.launching.graph import CAMERA, CELL, PARAMETERS, GraphConfig
from embodied_vision.launching.parameters import declared

COMMON = set.intersection(*(set(parameters) for parameters in declared().values()))


def content(section: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(PARAMETERS.read_text())[section]["ros__parameters"]
    return found


@pytest.mark.parametrize("node", declared())
def test_the_file_holds_all_parameters_with_their_defaults(node: str) -> None:
    own = {name: one.default for name, one in declared()[node].items() if name not in COMMON}
    assert content(f"/**/{node}") == own


def test_the_file_holds_what_all_nodes_declare() -> None:
    for node, parameters in declared().items():
        assert content("/**") == {name: parameters[name].default for name in COMMON}, node


def test_every_parameter_has_a_comment() -> None:
    lines = [line for line in PARAMETERS.read_text().splitlines() if line.startswith("    ")]
    assert [line for line in lines if "#" not in line] == []


def test_overrides_win_and_hold_in_any_namespace(tmp_path: Path) -> None:
    config = GraphConfig(CELL, tmp_path, "left", parameters={"arm": {"speed": 0.5}}, use_sim_time=True)
    overrides = config.write_overrides()
    assert yaml.safe_load(overrides.read_text()) == {
        "/**": {"ros__parameters": {"use_sim_time": True}},
        "/**/encoder": {"ros__parameters": {"after": ["cell", "recorder"]}},
        "/**/policy": {"ros__parameters": {"after": ["cell", "recorder"]}},
        "/**/arm": {"ros__parameters": {"after": ["cell", "encoder", "policy", "recorder"], "speed": 0.5}},
        "/**/recorder": {"ros__parameters": {"after": ["cell"]}},
        "/**/task": {"ros__parameters": {"after": ["cell", "encoder", "policy", "arm", "recorder"]}},
    }
    arm, encoder = config.processes[3], config.processes[1]
    files, again = (params_files(config.command(arm, overrides, respawned=respawned)) for respawned in (False, True))
    assert files == [str(PARAMETERS), str(overrides)]
    assert again[:2] == files
    assert yaml.safe_load(Path(again[2]).read_text()) == {"/**/arm": {"ros__parameters": {"start_stopped": True}}}
    assert params_files(config.command(encoder, overrides, respawned=True)) == files
    assert "__ns:=/left" in config.command(arm, overrides, respawned=False)


def params_files(command: list[str]) -> list[str]:
    return [command[i + 1] for i, word in enumerate(command) if word == "--params-file"]


def test_composition_puts_encoder_and_policy_into_one_process(tmp_path: Path) -> None:
    config = GraphConfig(CELL, tmp_path, use_composition=True)
    assert [process.name for process in config.processes] == ["cell", "arm", "recorder", "task", "encoder+policy"]
    command = config.command(config.processes[-1], config.write_overrides(), respawned=False)
    assert command[1:5] == ["-m", "embodied_vision.nodes.composed", "encoder", "policy"]
    assert not any(word.startswith("__node:=") for word in command), "each keeps its own name"
    assert len(GraphConfig(CAMERA, tmp_path, use_composition=True).processes) == 3, "the encoder is alone there"


def test_nodes_that_wait_for_a_manager_do_not_start_themselves(tmp_path: Path) -> None:
    overrides = yaml.safe_load(GraphConfig(CAMERA, tmp_path, autostart=False).write_overrides().read_text())
    assert overrides["/**"] == {"ros__parameters": {"use_sim_time": False, "autostart": False}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"log_level": "loud"}, "give one of debug, info"),
        ({"params_files": (Path("none.yaml"),)}, "none.yaml does not exist"),
        ({"parameters": {"arm": {}}}, "only .*camera.* are started"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        GraphConfig(CAMERA, tmp_path, **options)
