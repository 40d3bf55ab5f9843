"""One decision a request: the first complete set of frames and features stamped after it goes to the policy."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseArray
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from embodied_vision import topics
from embodied_vision.calibration import read_cameras
from embodied_vision.cores import use_cores
from embodied_vision.encoders.base import Encoder
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.errors import BadInput, CheckpointError, EmbodiedVisionError, RunFailed
from embodied_vision.frame_health import check_frame
from embodied_vision.matching import StampMatcher
from embodied_vision.nodes import qos
from embodied_vision.nodes.conversions import (
    check_calibration,
    from_json,
    image_to_color,
    image_to_depth,
    image_to_features,
    pick_place_to_poses,
    scores_to_image,
    stamp_to_ns,
    to_json,
)
from embodied_vision.nodes.deferred import Answer, DeferredTrigger
from embodied_vision.nodes.drift_watch import DriftWatch
from embodied_vision.nodes.image_transport import (
    color_stream,
    declare_color_transport,
    declare_depth_transport,
    depth_stream,
)
from embodied_vision.nodes.lifecycle import ERROR, OK, WARN, ManagedNode
from embodied_vision.nodes.running import run
from embodied_vision.nodes.shadowing import Shadowing
from embodied_vision.nodes.trace import Tracer
from embodied_vision.paths import shipped
from embodied_vision.policies.attempts import Attempts
from embodied_vision.policies.policy import Explanation, Policy
from embodied_vision.types import RGBD, Camera, Features

_PARTS = ("color", "depth", "features", "features_info")
_FEATURES_SILENT_S = 3.0
"""The encoder leaves frames out while the arm moves (`moving_rate`)."""


@dataclass
class _Request:
    """A caller of ~/predict: frames must be stamped after `after_ns`."""

    answer: Answer
    after_ns: int
    deadline_ns: int
    deciding: bool = False


@dataclass(frozen=True)
class _Observation:
    """What a decision is made on, one entry a camera, and when its stages were passed, see `Tracer`."""

    frames: tuple[RGBD, ...]
    features: tuple[Features, ...]
    clocks: dict[str, int]


class PolicyNode(ManagedNode):
    """Decides in a thread of its own, so that the heartbeat goes on; a reload waits for its turn there."""

    def __init__(self) -> None:
        super().__init__("policy")
        self.param(
            "checkpoint", "block-insertion", "name of a shipped checkpoint, or the whole path of a folder or pointer"
        )
        self.param("follow", True, "load what the pointer leads to by then before a decision, not on ~/reload alone")
        self.param("encoder", "default", "encoder whose features are read, as in the encoder node", read_only=True)
        self.param("calibration", "", "YAML with the cameras; empty for the simulated cell's", read_only=True)
        self.param("threads", 1, "CPU threads of one decision", (1, 64), read_only=True)
        self.param("slop", 0.005, "largest difference of stamps within one set of frames, s", (0.0, 1.0))
        self.param("timeout", 5.0, "longest wait of ~/predict for a set of frames, s", (0.1, 600.0))
        declare_color_transport(self)
        declare_depth_transport(self)
        self._tracer = Tracer(self)
        self._poses = self.create_publisher(PoseArray, "pick_place", qos.DECISION)
        self._decision = self.create_publisher(String, "policy/decision", qos.DECISION)
        self._info = self.create_publisher(String, "policy/info", qos.STATUS)
        self._scores = self.create_publisher(Image, "~/scores", qos.SENSOR)
        DeferredTrigger(self, "~/predict", self._predict)
        DeferredTrigger(self, "~/reload", self._reload)
        self._drift = DriftWatch(self)
        self._shadowing = Shadowing(self)
        self._thread: ThreadPoolExecutor | None = None
        self._encoder: Encoder | None = None
        self._policy: Policy | None = None
        self._named, self._path, self._loading = "", Path(), False
        self._barred = ""
        self._cameras: dict[str, Camera] = {}
        self._matchers: dict[str, StampMatcher] = {}
        self._sets = StampMatcher([])
        self._encoder_info: dict[str, Any] = {}
        self._request: _Request | None = None
        self._answering = threading.Lock()
        self._arm_moves = False
        self._decided = 0
        self._attempts = Attempts()
        self._published: Explanation | None = None

    def setup(self) -> None:
        self._cameras = {camera.name: camera for camera in read_cameras(self.value("calibration"))}
        self._encoder = load_encoder(self.value("encoder"))
        self._thread = ThreadPoolExecutor(1, "policy", use_cores, (self.value("threads"),))
        path, self._policy = self._thread.submit(self._load, self.value("checkpoint")).result()
        self._thread.submit(self._shadowing.load, self._encoder).result()
        self._announce(path)

    def start(self) -> None:
        names, slop_ns = list(self._cameras), round(self.value("slop") * 1e9)
        self._matchers = {name: StampMatcher(_PARTS, slop_ns) for name in names}
        self._sets = StampMatcher(names, slop_ns)
        self._arm_moves = False
        self._attempts, self._published = Attempts(), None
        for name in names:
            for part, kind, topic, silent_s in (
                ("color", *color_stream(self, topics.color(name)), None),
                ("depth", *depth_stream(self, topics.depth(name)), None),
                ("features", Image, topics.features(name, names), _FEATURES_SILENT_S),
                ("features_info", CameraInfo, topics.features_info(name, names), _FEATURES_SILENT_S),
            ):
                self.subscribe_sensor(kind, topic, self._taker(name, part), silent_s=silent_s)
            self.subscribe_sensor(CameraInfo, topics.color_info(name), self._checker(self._cameras[name]))
        self.subscribe(String, "encoder/info", qos.STATUS, self._take_encoder_info)
        self.subscribe(String, "arm/status", qos.STATUS, self._take_arm_status)
        self.subscribe(String, "recorder/status", qos.STATUS, self._drift.hear_recorder)
        self.every(0.1, self._check_deadline)
        self.health(OK, "waiting for a request", decided=self._decided)

    def halt(self) -> None:
        self._finish(False, "the policy node was deactivated")

    def teardown(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True)
        self._thread = self._policy = self._encoder = None

    # ---- checkpoints

    def _load(self, checkpoint: str) -> tuple[Path, Policy]:
        path = _folder(checkpoint)
        try:
            return path, Policy.load(path, self._encoder)
        except CheckpointError as error:
            from embodied_vision.learning.promotion import other_encoder  # what learning needs, only where it is used

            assert self._encoder is not None
            where = other_encoder(Path(checkpoint).expanduser(), self._encoder.encoder_id)
            raise CheckpointError(f"{error}{where}") from error

    def _announce(self, path: Path) -> None:
        assert self._policy is not None
        info = {
            "checkpoint_id": self._policy.checkpoint_id,
            "encoder_id": self._policy.encoder_id,
            "task": self._policy.task,
            "workspace": self._policy.workspace.to_dict(),
            "path": str(path),
            "threads": self.value("threads"),
        }
        self._named, self._path = self.value("checkpoint"), path
        self._info.publish(to_json(info))
        self._drift.loaded(path, self._policy.checkpoint_id)
        self.get_logger().info(f"checkpoint {info['checkpoint_id']} for {info['task']!r} from {path}")

    def _reload(self, answer: Answer) -> None:
        if self._thread is None:
            answer.give(False, f"the policy node is {self.state}; configure it, which loads the checkpoint")
            return

        def load() -> tuple[Path, Policy]:
            loaded = self._load(self.value("checkpoint"))
            self._shadowing.load(self._encoder)
            return loaded

        self._in_thread(load, lambda future: answer.give(*self._take_up(future)))

    def _take_up(self, future: Future[tuple[Path, Policy]]) -> tuple[bool, str]:
        """Decide with what was loaded from now on, or go on as before; whether, and the checkpoint's id or why not."""
        kept = self._policy.checkpoint_id if self._policy is not None else "none"
        error = future.exception()
        if error is not None:
            self._barred = self._why_barred(kept, error)
            self.get_logger().error(self._barred or f"cannot reload, checkpoint {kept} stays: {error}")
            return False, self._barred or f"{error}; checkpoint {kept} stays in use"
        self._barred = ""
        path, self._policy = future.result()
        self._announce(path)
        return True, self._policy.checkpoint_id

    def _why_barred(self, kept: str, error: BaseException) -> str:
        """Why the checkpoint at hand must not decide any more, though the one in use cannot be loaded; else empty."""
        from embodied_vision.learning.promotion import is_taken_back  # what learning needs, only where it is used

        named = Path(self.value("checkpoint")).expanduser()
        if not (named.is_absolute() and is_taken_back(named, kept)):
            return ""
        return f"checkpoint {kept} was taken back and decides no more; the one in use again cannot be loaded: {error}"

    def _follow(self) -> None:
        """Load what the pointer leads to, if that is another checkpoint than before; no frame is taken meanwhile."""
        named = self.value("checkpoint")
        if not self.value("follow") or self._loading or named != self._named:
            return
        if not Path(named).expanduser().is_absolute():
            return  # what ships stays as it is
        path = _folder(named)
        if path == self._path or not path.is_dir():
            return

        def done(future: Future[tuple[Path, Policy]]) -> None:
            self._loading = False
            taken, _ = self._take_up(future)
            if not taken:
                self._path = path  # told once
            if self._barred:
                self.health(ERROR, self._barred)
                self._finish(False, self._barred)

        self._loading = True
        self._in_thread(lambda: self._load(named), done)

    def _in_thread(self, work: Callable[[], Any], done: Callable[[Future[Any]], None]) -> None:
        assert self._thread is not None
        self._thread.submit(work).add_done_callback(lambda future: self.post(lambda: done(future)))

    # ---- what comes in

    def _taker(self, camera: str, part: str) -> Callable[[Any], None]:
        def take(message: Any) -> None:
            complete = self._matchers[camera].add(part, stamp_to_ns(message.header.stamp), message)
            if complete is None:
                return
            stamp_ns = stamp_to_ns(complete["color"].header.stamp)
            self._matchers[camera].forget_before(stamp_ns)  # features come in order: what is older gets none
            self._tracer.mark("policy.receive", stamp_ns)
            matched = self._sets.add(camera, stamp_ns, complete)
            if matched is not None:
                self._take_set(matched)

        return take

    def _checker(self, camera: Camera) -> Callable[[CameraInfo], None]:
        def check(message: CameraInfo) -> None:
            try:
                check_calibration(camera, message)
            except BadInput as error:
                self.health(ERROR, str(error))
                self._finish(False, str(error))

        return check

    def _take_encoder_info(self, message: String) -> None:
        self._encoder_info = from_json(message, "encoder/info")

    def _take_arm_status(self, message: String) -> None:
        moved, self._arm_moves = self._arm_moves, from_json(message, "arm/status").get("state") == "moving"
        if self._arm_moves and self._published is not None:
            made, self._published = self._published, None
            self._in_thread(lambda: self._attempts.note(made), lambda _: None)
        if moved and not self._arm_moves and self._request is not None:
            self._request.after_ns = max(self._request.after_ns, self.now_ns())

    # ---- requests

    def _predict(self, answer: Answer) -> None:
        if not self.is_active:
            answer.give(False, f"the policy node is {self.state}; activate it first")
            return
        if self._request is not None:
            answer.give(False, "another decision is being made; wait for it")
            return
        self._follow()
        if self._barred and not self._loading:
            answer.give(False, self._barred)
            return
        now = self.now_ns()
        steady = self._steady.now().nanoseconds
        self._request = _Request(answer, now, steady + round(self.value("timeout") * 1e9))

    def _take_set(self, matched: dict[Any, Any]) -> None:
        request = self._request
        if request is None or request.deciding or self._arm_moves or self._loading:
            return
        stamps = [stamp_to_ns(matched[name]["color"].header.stamp) for name in self._cameras]
        if min(stamps) <= request.after_ns:
            return
        policy = self._policy
        assert policy is not None
        request.deciding = True

        def decide() -> tuple[Explanation, dict[str, int]] | None:
            explanation, observation = self._decide(policy, matched)
            with self._answering:
                if self._request is not request:
                    return None
                clocks = self._publish(policy, explanation, observation)
            self._shadowing.saw(explanation, policy.checkpoint_id, observation.frames, observation.features)
            return explanation, clocks

        def done(future: Future[tuple[Explanation, dict[str, int]] | None]) -> None:
            error = future.exception()
            if self._request is not request:
                return
            if error is None:
                published = future.result()
                assert published is not None, "it is the request that was answered"
                self._tell(*published)
                return
            if not isinstance(error, EmbodiedVisionError):
                self.get_logger().error(f"decision failed: {error!r}")
            self.health(WARN, f"no decision: {error}", decided=self._decided)
            self._finish(False, str(error) or repr(error))

        self._in_thread(decide, done)

    def _decide(self, policy: Policy, matched: dict[Any, Any]) -> tuple[Explanation, _Observation]:
        info = self._encoder_info
        if info.get("encoder_id") != policy.encoder_id:
            raise BadInput(
                f"the features come from encoder {info.get('encoder_id', 'unknown')!r} (encoder/info), checkpoint "
                f"{policy.checkpoint_id} reads {policy.encoder_id!r}; start the encoder that it names"
            )
        observation = self._observation(matched, info)
        explanation = policy.explain(observation.frames, observation.features, self._attempts)
        if not explanation.action.is_finite():
            raise RunFailed(
                f"checkpoint {policy.checkpoint_id} computed a non-finite action for the frames stamped "
                f"{explanation.action.stamp_ns}, not published; check its weights"
            )
        observation.clocks["policy.decided"] = time.monotonic_ns()
        return explanation, observation

    def _observation(self, matched: dict[Any, Any], info: dict[str, Any]) -> _Observation:
        frames, features, clocks = [], [], {"policy.begin": time.monotonic_ns()}
        for name, camera in self._cameras.items():
            parts = matched[name]
            stamp_ns = stamp_to_ns(parts["color"].header.stamp)
            frames.append(RGBD(image_to_color(parts["color"]), image_to_depth(parts["depth"]), camera, stamp_ns))
            check_frame(frames[-1])
            features.append(
                image_to_features(
                    parts["features"],
                    parts["features_info"],
                    camera.K,
                    encoder_id=info["encoder_id"],
                    artefact_id=info["artefact_id"],
                )
            )
        clocks["policy.converted"] = time.monotonic_ns()
        return _Observation(tuple(frames), tuple(features), clocks)

    def _publish(self, policy: Policy, explanation: Explanation, observation: _Observation) -> dict[str, int]:
        """Send a decision from the thread that made it, which spares it the way over the executor."""
        action = explanation.action
        decision = {
            **action.to_dict(),
            "failed": [list(point) for point in explanation.failed],
            "task": policy.task,
            "checkpoint_id": policy.checkpoint_id,
            "encoder_id": policy.encoder_id,
            "artefact_id": observation.features[0].artefact_id,
            "threads": self.value("threads"),
            "encoder_threads": self._encoder_info.get("threads", 0),
            "frames": [{"camera": f.camera.name, "stamp_ns": f.stamp_ns} for f in observation.frames],
        }
        self._published = explanation
        self._decision.publish(to_json(decision))
        self._poses.publish(pick_place_to_poses(action))
        clocks = {**observation.clocks, "policy.decide": time.monotonic_ns()}
        self._scores.publish(scores_to_image(_float32(explanation.pick_probability), action.stamp_ns))
        return clocks

    def _tell(self, explanation: Explanation, clocks: dict[str, int]) -> None:
        """Say that a decision went out."""
        action = explanation.action
        self._tracer.marks(action.stamp_ns, clocks)
        self._decided += 1
        self.health(OK, "decided", decided=self._decided, scores=dict(action.scores))
        self._finish(True, action.decision_id)
        self._in_thread(lambda: self._drift.look(explanation), lambda _: None)
        self._in_thread(self._shadowing.follow, lambda _: None)

    def _finish(self, success: bool, message: str) -> None:
        with self._answering:
            request, self._request = self._request, None
        if request is not None:
            request.answer.give(success, message)

    def _check_deadline(self) -> None:
        request = self._request
        if request is None or request.deciding or self._steady.now().nanoseconds < request.deadline_ns:
            return
        if self._arm_moves:
            why = "the arm is still moving"
        else:
            waiting = {name: matcher.newest() for name, matcher in self._matchers.items()}
            missing = [f"{part} of {name}" for name, parts in waiting.items() for part in parts if parts[part] is None]
            why = f"waiting for {', '.join(missing)}" if missing else "parts of the frames have different stamps"
        message = f"no complete frame within {self.value('timeout'):.1f} s after the request: {why}"
        self.health(WARN, message, decided=self._decided)
        self._finish(False, message)


def _folder(checkpoint: str) -> Path:
    """Folder of a shipped checkpoint, or of an absolute path, where a pointer leads to now.

    Raises:
        BadInput: nothing of that name ships, or it is a relative path.
    """
    path = Path(checkpoint).expanduser()
    if path.is_absolute():
        return path.resolve()
    if len(path.parts) == 1:
        return shipped(checkpoint)
    raise BadInput(
        f"checkpoint {checkpoint!r} is a relative path, and who set it may be anywhere; give the whole path, such as "
        f"{path.absolute()}, or the name of a shipped checkpoint"
    )


def _float32(scores: NDArray[np.float64]) -> NDArray[np.float32]:
    return scores.astype(np.float32)


def main() -> None:
    """Run the node until it is told to stop."""
    sys.exit(run(PolicyNode))


if __name__ == "__main__":
    main()
