"""What is lost on the way is known by the numbers of the publishers, also where the middleware says nothing."""

from __future__ import annotations

import time

from std_msgs.msg import Float64

from embodied_vision.nodes import qos
from embodied_vision.nodes.losses import Losses
from tests.nodes.conftest import Graph, until


def info(number: int | None, publisher: bytes = b"a") -> dict[str, object]:
    return {"publication_sequence_number": number, "publisher_gid": {"data": publisher}}


def test_gaps_are_counted_for_each_publisher_and_from_its_first_message_on() -> None:
    losses = Losses()
    assert [losses.before(info(n)) for n in (7, 8, 11, 10, 12)] == [0, 0, 2, 0, 0]
    assert [losses.before(info(n, b"b")) for n in (100, 102)] == [0, 1]
    assert losses.before(info(13)) == 0
    assert losses.before(info(None)) == 0
    assert losses.before({}) == 0


def test_many_publishers_take_no_memory() -> None:
    losses = Losses()
    for number in range(1000):
        assert losses.before(info(number, number.to_bytes(2, "big"))) == 0
    assert len(losses._newest) <= 16


def test_a_reader_that_is_too_slow_knows_what_it_missed(graph: Graph) -> None:
    losses, missed, heard = Losses(), [0], [0]

    def hear(_message: Float64, about: dict[str, object]) -> None:
        heard[0] += 1
        missed[0] += losses.before(about)
        time.sleep(0.01)

    graph.client.node.create_subscription(Float64, "fast", hear, qos.best_effort(qos.SENSOR))
    publisher = graph.publisher(Float64, "fast")
    publisher.publish(Float64())
    until(lambda: heard[0] == 1, what="the first message, from which on losses are known")
    for number in range(300):
        publisher.publish(Float64(data=float(number)))
    until(lambda: heard[0] + missed[0] >= 301, what=lambda: f"{heard} heard and {missed} missed are all")
    assert heard[0] + missed[0] == 301
    assert missed[0] > 0
