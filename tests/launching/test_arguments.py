"""Launch files and the command line offer the same arguments, and set the same parameters."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from typer.main import get_command

from embodied_vision.cli import launch
from embodied_vision.cli.launch import sentence
from embodied_vision.errors import BadInput
from embodied_vision.launching.arguments import COMMON, LAUNCHABLE, SWITCH, Argument, named
from embodied_vision.launching.graph import active_before
from embodied_vision.launching.parameters import declared
from embodied_vision.paths import PACKAGE

OF_THE_TERMINAL = {
    "arm": {"run_dir", "domain_id", "timeout"},
    "cell": {"run", "run_dir", "domain_id", "timeout"},
    "camera": {"record", "run_dir", "domain_id", "timeout"},
}
"""What has no place in a launch file: ros2 launch has its own logs, domain and way to call services."""


def options(graph: str) -> dict[str, Any]:
    group: Any = get_command(launch.app)
    return {option.name: option for option in group.commands[graph].params}


def arguments(graph: str) -> dict[str, Argument]:
    return named((*COMMON, *LAUNCHABLE[graph].arguments))


@pytest.mark.parametrize("graph", LAUNCHABLE)
def test_the_command_line_has_exactly_the_arguments_of_the_launch_file(graph: str) -> None:
    assert OF_THE_TERMINAL[graph] <= set(options(graph))
    assert set(options(graph)) - OF_THE_TERMINAL[graph] - {"discovery", "peer", "enclave"} == set(arguments(graph))


@pytest.mark.parametrize("graph", LAUNCHABLE)
def test_they_say_the_same(graph: str) -> None:
    for name, argument in arguments(graph).items():
        option: Any = options(graph)[name]
        assert option.help == sentence(argument.description), name
        if argument.choices == SWITCH:
            assert option.secondary_opts == [f"--no-{name.replace('_', '-')}"]
            assert option.default == {"true": True, "false": False}.get(argument.default)
        elif argument.choices:
            assert tuple(launch.LogLevel) == argument.choices
            assert option.default == argument.default
        if argument.sets:
            bounds = declared()[argument.sets[0][0]][argument.sets[0][1]].bounds
            for number, given in enumerate((option.min, option.max)):
                assert given is None or (bounds is not None and given == bounds[number]), name


@pytest.mark.parametrize("graph", LAUNCHABLE)
def test_every_argument_reaches_a_parameter_that_its_node_declares(graph: str) -> None:
    every = {argument.name: "given" for argument in LAUNCHABLE[graph].arguments}
    nodes = {node.name for node in LAUNCHABLE[graph].started(every)}
    for argument in LAUNCHABLE[graph].arguments:
        assert any(node in nodes for node, _ in argument.sets), argument.name
        for node, parameter in argument.sets:
            assert parameter in declared()[node]


@pytest.mark.parametrize("graph", LAUNCHABLE)
def test_there_is_a_launch_file(graph: str) -> None:
    text = (PACKAGE.parent / "launch" / f"{graph}.launch.py").read_text()
    calls = [call for call in ast.walk(ast.parse(text)) if isinstance(call, ast.Call)]
    assert [ast.literal_eval(call.args[0]) for call in calls] == [graph]


def test_texts_become_values_of_the_parameters_types() -> None:
    cell, camera = LAUNCHABLE["cell"], LAUNCHABLE["camera"]
    assert cell.parameters({"task": "sweeping-piles", "scenes": "7", "store": ""}) == {
        "cell": {"task": "sweeping-piles"},
        "task": {"task": "sweeping-piles", "scenes": 7},
        "recorder": {"task": "sweeping-piles"},
        "policy": {"checkpoint": "sweeping-piles"},
    }
    assert cell.parameters({"task": "a", "policy": "b"})["policy"] == {"checkpoint": "b"}
    found = camera.parameters({"source": "12", "rate": "30", "loop": "false"})
    assert found["camera"] == {"source": "12", "rate": 30.0, "loop": False}
    assert found["recorder"] == {"robot": "none", "task": "camera"}


def test_a_judge_and_a_learner_come_where_they_are_asked_for() -> None:
    arm, cell = LAUNCHABLE["arm"], LAUNCHABLE["cell"]
    alone = {"task": "kitting", "store": "/episodes", "encoder": "mine", "calibration": "/cameras.yaml"}
    assert [node.name for node in arm.started(alone)] == ["encoder", "policy", "arm", "recorder"]
    found = arm.parameters(alone)
    assert set(found) == {"encoder", "policy", "arm", "recorder"}
    assert found["arm"]["upstream"] == ["encoder", "policy", "recorder"]

    judged = {**alone, "judge": "/judge", "learn": "/policies"}
    nodes = {node.name: node for node in arm.started(judged)}
    assert set(nodes) == {"encoder", "policy", "arm", "recorder", "task", "learner"}
    assert active_before(nodes["task"], tuple(nodes.values())) == ["encoder", "policy", "arm", "recorder"]
    found = arm.parameters(judged)
    assert found["arm"]["upstream"] == ["encoder", "policy", "recorder", "task"], "without its task node the arm halts"
    assert found["task"] == {
        "needs": ["encoder", "policy", "arm", "recorder"],
        "task": "kitting",
        "outcome_classifier": "/judge",
        "encoder": "mine",
        "calibration": "/cameras.yaml",
    }
    assert found["learner"] == {"scenes": 0, "policies": "/policies", "store": "/episodes", "encoder": "mine"}

    assert "learner" not in {node.name for node in cell.started({})}
    assert "learner" in {node.name for node in cell.started({"learn": "/policies"})}
    assert cell.parameters({"learn": "/policies"})["learner"] == {"policies": "/policies"}, (
        "a simulator knows its scenes"
    )


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"rate": "fast"}, "rate must be a number"),
        ({"rate": "1000"}, "rate must lie between"),
        ({"rate": "nan"}, "rate must be a number"),
        ({"rate": ".nan"}, "rate must lie between"),
        ({"loop": "maybe"}, "loop must be true or false"),
        ({"rate": "[1"}, "rate must be a number"),
    ],
)
def test_a_text_that_its_parameter_does_not_take_is_refused(texts: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        LAUNCHABLE["camera"].parameters(texts)
