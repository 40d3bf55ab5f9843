"""Writing one episode."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embodied_vision.episodes.arrays import MOST_CHUNK_BYTES
from embodied_vision.episodes.codecs import BloscChunks, ChunkCodec, JpegChunks, seal
from embodied_vision.episodes.commit import JOURNAL, commit, remove_staging
from embodied_vision.episodes.frames import AnyFrame, EncodedFrame, depth_mm
from embodied_vision.episodes.htj2k import Htj2kChunks
from embodied_vision.episodes.journal import JournalReader, JournalWriter
from embodied_vision.episodes.regular import check_own_folders
from embodied_vision.episodes.schema import SCHEMA, ColorCodec, color_spec, folder_name, plain, values_spec
from embodied_vision.episodes.schema import color_codec as make_color_codec
from embodied_vision.episodes.store import EpisodeStore
from embodied_vision.errors import BadInput, EpisodeError
from embodied_vision.geometry import depth_to_metres
from embodied_vision.syncing import sync
from embodied_vision.types import RGBD, Camera, PickPlace, new_id

_STAGE_ATTEMPTS = 10


class EpisodeWriter:
    """Writes one episode; the methods may be called from several threads.

    Whatever an append call took is on file when it returns: a killed process loses none of it (a power cut the
    last second), and `repair` brings it back. The episode appears in the store whole, when `close` returns.

    Args:
        store: where to.
        task: name of the task, such as "block-insertion".
        robot: name of the robot model.
        cameras: calibration of every camera whose frames will come, with unique names.
        encoder_id, policy_id: who acts.
        attributes: anything else worth knowing, JSON.
        color_codec: "jpeg", "htj2k" (smaller, slower) or "lossless", for the frames; those of decisions are always
            lossless.
        quality: of lossy images, 1 to 100.
        created_ns: when the episode began, system time; now when None. For copies of what was recorded elsewhere.
        tags: labels of the episode.

    Raises:
        BadInput: unusable arguments.
        EpisodeError: the store cannot be written.
    """

    def __init__(
        self,
        store: EpisodeStore,
        *,
        task: str,
        robot: str,
        cameras: Sequence[Camera],
        encoder_id: str = "",
        policy_id: str = "",
        attributes: Mapping[str, Any] | None = None,
        color_codec: ColorCodec = "jpeg",
        quality: int = 90,
        created_ns: int | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        self.store = store
        self._cameras = {camera.name: camera for camera in cameras}
        if len(self._cameras) != len(cameras):
            raise BadInput(f"cameras {[camera.name for camera in cameras]} share a name; rename one")
        for name, camera in self._cameras.items():
            folder_name(name)
            if color_spec(camera, BloscChunks(1)).chunk_bytes > MOST_CHUNK_BYTES:
                raise BadInput(
                    f"camera {name!r}: images of {camera.width} x {camera.height} px take more than {MOST_CHUNK_BYTES} "
                    "bytes; log smaller ones"
                )
        self._color = make_color_codec(color_codec, quality)
        self._lossless = BloscChunks(1)
        self._depth = BloscChunks(2)
        self._dimensions: dict[str, int] = {}
        self._mutex = threading.Lock()
        head = {
            "kind": "header",
            "schema": SCHEMA,
            "task": task,
            "robot": robot,
            "cameras": [camera.to_dict() for camera in cameras],
            "encoder_id": encoder_id,
            "policy_id": policy_id,
            "attributes": plain(attributes or {}, "attributes"),
            "color_codec": color_codec,
            "quality": quality,
            "created_ns": time.time_ns() if created_ns is None else int(created_ns),
            "tags": sorted(set(tags)),
            "history": [],
        }
        self.id, self._journal = _stage(store)
        self._staging = store.staging_path / self.id
        try:
            self._journal.append({**head, "id": self.id})
        except EpisodeError:
            self._journal.release()  # else the lock would keep `repair` away for as long as this process lives
            raise
        except BadInput:
            self.discard()
            raise

    def append_frame(self, frame: AnyFrame) -> None:
        """Log a frame. Depth is kept in whole millimetres.

        Raises:
            BadInput: the frame is not of a camera of this episode.
            EpisodeError: the disk is full or fails.
        """
        self.append_encoded(self.encode(frame))

    def encode(self, frame: AnyFrame, quality: int | None = None) -> EncodedFrame:
        """Encode a frame for `append_encoded`; touches no file, so that several threads may share the work.

        Args:
            frame: of a camera of this episode.
            quality: of the color image where it is below what the episode asks for; a reader needs not know. None, or
                lossless color: as the episode asks.

        Raises:
            BadInput: the frame is not of a camera of this episode.
        """
        self._check_camera(frame)
        color = self._color
        if isinstance(color, JpegChunks | Htj2kChunks) and quality is not None and quality < color.quality:
            color = replace(color, quality=quality)
        return EncodedFrame(frame.camera.name, int(frame.stamp_ns), self._encode(frame, color))

    def encode_jpeg(self, camera: str, stamp_ns: int, jpeg: bytes, depth: NDArray[np.uint16]) -> EncodedFrame:
        """A frame for `append_encoded` whose color image is a JPEG already: its bytes go to the episode as they are.

        Args:
            camera: name of a camera of this episode.
            stamp_ns: when the shutter closed.
            jpeg: RGB image of the camera's size; its header is checked, decode it before where its source is doubtful.
            depth: uint16 (H, W) in whole mm, 0 where there is no return.

        Raises:
            BadInput: no such camera or image, or the episode's color is kept in another way.
        """
        from embodied_vision.episodes.encoded import jpeg_shape

        if camera not in self._cameras:
            raise BadInput(f"frame of camera {camera!r}, the episode has {sorted(self._cameras)}; name it at the start")
        if not isinstance(self._color, JpegChunks):
            raise BadInput(f"camera {camera!r}: a JPEG image cannot go into an episode of other color; decode it")
        size = (self._cameras[camera].height, self._cameras[camera].width)
        if jpeg_shape(jpeg) != (*size, 3) or depth.shape != size or depth.dtype != np.uint16:
            raise BadInput(
                f"camera {camera!r}: JPEG image of {jpeg_shape(jpeg)} and depth {depth.dtype} {depth.shape}, its "
                f"calibration says {(*size, 3)} and uint16 {size}; check the resolution against the calibration"
            )
        return EncodedFrame(camera, int(stamp_ns), (seal(jpeg), seal(self._depth.encode(depth))))

    def append_encoded(self, frame: EncodedFrame) -> None:
        """Log a frame that `encode` or `encode_jpeg` of this writer made.

        Raises:
            EpisodeError: the disk is full or fails.
        """
        self._journal.append({"kind": "frame", "camera": frame.camera, "stamp": frame.stamp_ns}, frame.blobs)

    def note(self, name: str, value: Any) -> None:
        """Set an attribute of the episode while it is written, JSON; the last value counts, also after a crash.

        Raises:
            BadInput: something that JSON cannot hold.
            EpisodeError: the disk is full or fails.
        """
        self._journal.append({"kind": "note", "name": name, "value": plain(value, name)})

    def append(self, stream: str, stamp_ns: int, value: ArrayLike) -> None:
        """Log one value (D,) of a stream, in the order of the calls; D stays the same throughout the stream.

        Raises:
            BadInput: wrong shape or name.
            EpisodeError: the disk is full or fails.
        """
        row = np.atleast_1d(np.asarray(value, "<f8"))
        with self._mutex:
            if stream not in self._dimensions:
                folder_name(stream)
                if values_spec(row.size).chunk_bytes > MOST_CHUNK_BYTES:
                    raise BadInput(f"stream {stream!r}: {row.size} numbers at once; log them as several streams")
            dimension = self._dimensions.setdefault(stream, row.size)
        if row.shape != (dimension,):
            raise BadInput(
                f"stream {stream!r}: value of shape {row.shape} after ones of ({dimension},); "
                "log values of another length as a stream of their own"
            )
        self._journal.append({"kind": "sample", "stream": stream, "stamp": int(stamp_ns)}, [row.tobytes()])

    def append_decision(
        self, action: PickPlace, frames: Sequence[AnyFrame], info: Mapping[str, Any] | None = None
    ) -> None:
        """Log a decision with the frames it was made from; both come back bit for bit.

        Args:
            action: what was decided, non-finite values as well.
            frames: one a camera; depth in metres must have been through `geometry.quantise_depth`.
            info: anything else worth knowing, JSON.

        Raises:
            BadInput: frames that are not of a camera of this episode, or whose depth is not whole millimetres.
            EpisodeError: the disk is full or fails.
        """
        blobs: list[bytes] = []
        for frame in frames:
            self._check_camera(frame)
            if isinstance(frame, RGBD) and not np.array_equal(depth_to_metres(depth_mm(frame)), frame.depth):
                raise BadInput(
                    f"camera {frame.camera.name!r}: depth of a decision's frame is not in whole millimetres and would "
                    "not come back exactly; pass depth through geometry.quantise_depth where it enters the system"
                )
            blobs += self._encode(frame, self._lossless)
        fields = {
            "kind": "decision",
            "action": action.to_dict(),
            "info": plain(info or {}, "info"),
            "frames": [[frame.camera.name, int(frame.stamp_ns)] for frame in frames],
        }
        self._journal.append(fields, blobs)

    def close(self, outcome: Mapping[str, Any], closed_ns: int | None = None) -> str:
        """End the episode and let it appear in the store, whole and on the disk.

        Args:
            outcome: JSON, by convention `reward` (float), `solved` (bool), `aborted` (bool), `reason` (str).
            closed_ns: when the episode ended, system time; now when None. As `created_ns`, for copies.

        Returns:
            the episode's id.

        Raises:
            EpisodeError: the disk is full or fails; everything logged stays in staging for `repair`.
        """
        end = plain(outcome, "outcome")
        try:
            ended_ns = time.time_ns() if closed_ns is None else int(closed_ns)
            self._journal.append({"kind": "outcome", "outcome": end, "closed_ns": ended_ns})
            self._journal.sync()
            with JournalReader(self._staging / JOURNAL) as journal:
                commit(self.store, self.id, journal, end)
            remove_staging(self._staging)
        except OSError as error:
            raise EpisodeError(
                f"{self._staging} cannot be finished ({error.strerror}); free space or fix the disk, then run "
                f"`embodied-vision episodes repair {self.store.path}`"
            ) from error
        finally:
            self._journal.release()
        return self.id

    def discard(self) -> None:
        """Throw the episode away, unless it was closed or released."""
        if self._journal.is_open:
            remove_staging(self._staging)
            self._journal.release()

    def release(self) -> None:
        """Stop writing without an outcome: the episode stays in staging until `repair` brings it back."""
        self._journal.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _encode(self, frame: AnyFrame, color: ChunkCodec) -> tuple[bytes, bytes]:
        return seal(color.encode(frame.color)), seal(self._depth.encode(depth_mm(frame)))

    def _check_camera(self, frame: AnyFrame) -> None:
        camera = self._cameras.get(frame.camera.name)
        if camera is None:
            raise BadInput(
                f"frame of camera {frame.camera.name!r}, the episode has {sorted(self._cameras)}; "
                "name all cameras when the episode starts"
            )
        if camera is frame.camera:
            return
        same = (camera.width, camera.height) == (frame.camera.width, frame.camera.height)
        same = same and np.array_equal(camera.K, frame.camera.K)
        if not (same and np.array_equal(camera.T_base_camera, frame.camera.T_base_camera)):
            raise BadInput(
                f"camera {camera.name!r}: calibration changed within the episode; start a new episode for the new one"
            )


def _stage(store: EpisodeStore) -> tuple[str, JournalWriter]:
    """A fresh staging folder with a journal that this process alone has locked."""
    folder = store.staging_path
    for _ in range(_STAGE_ATTEMPTS):
        episode_id = new_id()
        folder = store.staging_path / episode_id
        try:
            check_own_folders(store.path)
            new = [path for path in (store.path, *store.path.parents) if not path.exists()]
            folder.mkdir(parents=True)
            journal = JournalWriter(folder / JOURNAL)
            try:
                for path in (folder, store.staging_path, store.path, *(path.parent for path in new)):
                    sync(path)
            except OSError:
                journal.release()
                raise
            return episode_id, journal
        except (FileExistsError, FileNotFoundError, BlockingIOError):
            continue  # a repair took the still empty folder for a dead writer's
        except OSError as error:
            raise EpisodeError(
                f"{folder} cannot be made ({error.filename or folder}: {error.strerror}); check the path's permissions "
                "and free space"
            ) from error
    raise EpisodeError(
        f"{folder} cannot be made: something keeps taking it away; is another program cleaning the store?"
    )
