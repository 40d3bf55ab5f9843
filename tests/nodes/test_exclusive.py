"""A node knows its own publishers by their GIDs, whatever they are remapped to, and finds those of others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (extra `ros`)")

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.subscription import MessageInfo
from std_msgs.msg import String

from embodied_vision.errors import RunFailed
from embodied_vision.nodes import exclusive as module
from embodied_vision.nodes import qos
from embodied_vision.nodes.exclusive import Exclusive
from tests.nodes.conftest import Graph, until

REMAPPED = ["--ros-args", "-r", "__ns:=/left", "-r", "arm/command:=/driver/command"]


@pytest.fixture
def node(shared_graph: Graph) -> Iterator[Callable[..., Node]]:
    """Makes nodes, each a participant of its own."""
    made: list[tuple[Node, Context]] = []

    def make(name: str, *arguments: str) -> Node:
        context = Context()
        rclpy.init(args=list(arguments), context=context, domain_id=shared_graph.client.node.context.get_domain_id())
        made.append((rclpy.create_node(name, context=context), context))
        return made[-1][0]

    yield make
    for one, context in made:
        one.destroy_node()
        rclpy.shutdown(context=context)


def test_our_own_publishers_are_no_intruders(node: Callable[..., Node]) -> None:
    exclusive = Exclusive(node("arm"))
    for topic in ("own/a", "own/a", "own/b"):
        exclusive.publisher(String, topic, qos.COMMAND)
    assert exclusive.intruder() is None


def test_a_graph_that_does_not_tell_is_not_asked_for_ever(
    node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_APPEAR_S", 0.05)
    arm = node("arm")
    monkeypatch.setattr(arm, "get_publishers_info_by_topic", lambda _topic: [])
    with pytest.raises(RunFailed, match="does not tell which publisher of /own/a"):
        Exclusive(arm).publisher(String, "own/a", qos.COMMAND)


def test_a_stranger_is_found_and_named_where_the_topic_is_remapped_to(node: Callable[..., Node]) -> None:
    exclusive = Exclusive(node("arm", *REMAPPED))
    exclusive.publisher(String, "arm/command", qos.COMMAND)
    node("rqt").create_publisher(String, "/driver/command", 1)
    until(lambda: exclusive.intruder() is not None, what="a stranger")
    until(lambda: "/rqt publishes on /driver/command" in str(exclusive.intruder()), what="its name")
    assert exclusive.intruder() is not None
    assert exclusive.intruder().lives  # type: ignore[union-attr]


def test_a_namesake_on_another_topic_or_namespace_is_told_apart(node: Callable[..., Node]) -> None:
    exclusive = Exclusive(node("arm", "--ros-args", "-r", "__ns:=/left"))
    exclusive.publisher(String, "arm/command", qos.COMMAND)
    other = Exclusive(node("arm", "--ros-args", "-r", "__ns:=/right"))
    other.publisher(String, "arm/command", qos.COMMAND)
    time.sleep(0.5)  # nothing to wait for: nothing shall be found
    assert exclusive.intruder() is None
    assert other.intruder() is None


def test_a_namesake_is_waited_out_first(node: Callable[..., Node]) -> None:
    exclusive = Exclusive(node("arm"))
    exclusive.publisher(String, "twin/command", qos.COMMAND)
    node("arm").create_publisher(String, "twin/command", 1)
    until(lambda: "/arm publishes" in str(exclusive.intruder()), what="the namesake")
    assert not exclusive.intruder().lives  # type: ignore[union-attr]


def test_a_topic_that_we_only_watch_is_nobody_elses(node: Callable[..., Node]) -> None:
    exclusive = Exclusive(node("arm"))
    exclusive.watch("controller/joint_trajectory")
    assert exclusive.intruder() is None
    node("rqt").create_publisher(String, "controller/joint_trajectory", 1)
    until(lambda: exclusive.intruder() is not None, what="a stranger")


def test_senders_are_told_apart_and_a_silent_publisher_is_none(node: Callable[..., Node]) -> None:
    arm = node("arm")
    exclusive, said = Exclusive(arm), []

    def hear(_message: String, info: MessageInfo) -> None:
        said.append(exclusive.rival("decisions", info))

    arm.create_subscription(String, "decisions", hear, qos.DECISION)
    publishers = [node(name).create_publisher(String, "decisions", qos.DECISION) for name in ("policy", "rqt")]
    executor = SingleThreadedExecutor(context=arm.context)
    executor.add_node(arm)
    until(lambda: all(one.get_subscription_count() for one in publishers), what="the reader")

    def send(number: int) -> str:
        before = len(said)
        publishers[number].publish(String())
        until(lambda: executor.spin_once(timeout_sec=0.05) or len(said) > before, what="the message")
        return said[-1]

    until(lambda: len(arm.get_publishers_info_by_topic("decisions")) == 2, what="both publishers")
    assert [send(0), send(0)] == ["", ""]
    assert "publishes on /decisions beside" in send(1)
    assert send(0) == ""
    exclusive.forget()
    assert send(1) == ""
    executor.shutdown()
