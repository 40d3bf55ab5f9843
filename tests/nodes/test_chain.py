"""Camera, encoder, policy and recorder as processes: decisions made over DDS are made again offline, bit for bit."""

from __future__ import annotations

from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.learning.replay import replay_decisions
from embodied_vision.policies.policy import Policy
from tests.nodes.conftest import Graph
from tests.nodes.samples import write_encoder, write_policy
from tests.nodes.test_recorder import write_images


def test_a_logged_decision_is_made_again_bit_for_bit(graph: Graph) -> None:
    encoder = write_encoder(graph.run_dir / "encoder")
    write_policy(graph.run_dir / "policy", encoder.encoder_id)
    write_images(graph.run_dir / "images", 5)
    store = EpisodeStore(graph.run_dir / "store")
    paths = {"encoder": str(graph.run_dir / "encoder")}
    nodes = [
        graph.start("encoder", wait=False, **paths),
        graph.start("policy", wait=False, checkpoint=str(graph.run_dir / "policy"), timeout=20.0, **paths),
        graph.start("recorder", wait=False, store=str(store.path)),
    ]
    graph.ready(*nodes)
    nodes.append(graph.start("camera", source=str(graph.run_dir / "images"), rate=8.0))
    graph.wait("recorder/status", lambda s: s["frames_received"] >= 5, *nodes)  # what the policy holds, it has as well
    episode_id = graph.client.trigger("recorder/start")
    made = [graph.client.trigger("policy/predict") for _ in range(3)]
    graph.wait("recorder/status", lambda s: s["decisions"] == 3, *nodes)
    assert graph.client.trigger("recorder/stop") == episode_id

    episode = store.open(episode_id)
    assert episode.encoder_id == encoder.encoder_id
    policy = Policy.load(graph.run_dir / "policy", encoder)
    assert episode.policy_id == policy.checkpoint_id
    comparisons = list(replay_decisions(episode, policy, encoder))
    assert [c.decision_id for c in comparisons] == made
    assert all(c.same_ids and c.identical for c in comparisons), comparisons
