"""The recorder's service ~/correct: with the episode while it is open, and afterwards."""

from __future__ import annotations

import pytest
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import String

from embodied_vision import geometry
from embodied_vision.episodes.corrections import corrections
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.episodes.verify import verify
from embodied_vision.errors import RunFailed
from embodied_vision.nodes import conversions, qos
from embodied_vision.types import PickPlace
from tests.nodes.conftest import Graph, until
from tests.nodes.test_recorder import Announcer, write_images


def test_a_decision_is_corrected_while_its_episode_is_open_and_after_it_was_closed(graph: Graph) -> None:
    store = EpisodeStore(graph.run_dir / "store")
    write_images(graph.run_dir / "images", 2)
    graph.start("recorder", store=str(store.path), task="block-insertion")
    client, announcer = graph.client, Announcer(graph)

    def correct(**given: str) -> str:
        client.set_parameters("recorder", given)
        return client.trigger("recorder/correct")

    with pytest.raises(RunFailed, match="no decision was logged yet"):
        client.trigger("recorder/correct")
    episode_id = announcer.start()
    decisions = graph.publisher(String, "policy/decision", qos.DECISION)
    stamps: list[int] = []
    graph.subscribe(
        CameraInfo, "camera/color/camera_info", lambda m: stamps.append(conversions.stamp_to_ns(m.header.stamp))
    )
    graph.start("camera", source=str(graph.run_dir / "images"), rate=20.0, readers=1)
    until(lambda: len(stamps) >= 3, what="frames come")
    action = PickPlace(geometry.tool_down(0.5, 0, 0.1), geometry.tool_down(0.5, 0.1, 0.1), stamp_ns=stamps[2])
    info = {"checkpoint_id": "c", "encoder_id": "e", "frames": [{"camera": "camera", "stamp_ns": stamps[2]}]}
    decisions.publish(conversions.to_json({**action.to_dict(), **info}))
    graph.wait("recorder/status", lambda s: s["decisions"] == 1)

    for given, words in (
        ({"correct_place": "0.5,0.2,90,0.05"}, "nobody"),
        ({"correct_place": "there", "correct_by": "Ada"}, "correct_place 'there'"),
        ({"correct_place": "9,0,0,0.1"}, "workspace"),
        ({"correct_place": "0.5,0.2,90,0.05", "correct_decision": "x"}, "'x' is not among"),
    ):
        with pytest.raises(RunFailed, match=words):
            correct(**given)
    assert correct(correct_decision="", correct_note="first") == action.decision_id
    announcer.end(reward=0.0, solved=False)
    kept = corrections(store.open(episode_id))[0]
    assert (kept.who, kept.how, kept.note, kept.place[1, 3]) == ("Ada", "service", "first", 0.2)

    assert correct(correct_place="0.5,0.3,90,0.05", correct_note="second") == action.decision_id
    episode = store.open(episode_id)
    assert [entry["note"] for entry in episode.attributes["corrections"]] == ["first", "second"]
    assert corrections(episode)[0].place[1, 3] == 0.3
    assert verify(store)[0].ok
