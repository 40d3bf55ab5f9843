"""Images from where no ROS driver runs: a folder, a video file, a V4L2 device."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from embodied_vision.errors import BadInput
from embodied_vision.geometry import depth_to_metres

_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}

Images = tuple[NDArray[np.uint8], NDArray[np.float32]]
"""color uint8 (H, W, 3) RGB; depth float32 (H, W) in m, 0 = no return."""


class Source(Protocol):
    """Yields registered color and depth images; depth is all 0 where the source has none."""

    def read(self) -> Images | None:
        """The next images; None at the end.

        Raises:
            BadInput: they cannot be read.
        """
        ...

    def rewind(self) -> bool:
        """Start again from the first image; False where that is impossible."""
        ...

    def close(self) -> None:
        """Let go of the device or file."""
        ...


def _no_depth(color: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.zeros(color.shape[:2], np.float32)


class FolderSource:
    """Pictures of a folder in the order of their names.

    Either pictures alone, or `color/NAME.png` beside `depth/NAME.png` (16 bit, whole mm, registered to color).
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise BadInput(f"{folder} is no folder; give one with pictures, or with color/ and depth/")
        self._depth_folder = folder / "depth" if (folder / "color").is_dir() else None
        self._paths = _pictures(folder / "color" if self._depth_folder else folder)
        if not self._paths:
            raise BadInput(f"{folder} holds no pictures ({', '.join(sorted(_PICTURES))})")
        self._depths: dict[str, Path] = {}
        if self._depth_folder is not None and self._depth_folder.is_dir():
            self._depths = {path.stem: path for path in _pictures(self._depth_folder)}
            missing = [path.name for path in self._paths if path.stem not in self._depths]
            if missing:
                raise BadInput(f"{self._depth_folder} lacks the depth of {missing[:3]}; name both images alike")
        self._next = 0

    def __len__(self) -> int:
        return len(self._paths)

    def read(self) -> Images | None:
        """The next pictures."""
        if self._next == len(self._paths):
            return None
        path = self._paths[self._next]
        self._next += 1
        color = np.array(_open(path).convert("RGB"), np.uint8)
        if path.stem not in self._depths:
            return color, _no_depth(color)
        depth_path = self._depths[path.stem]
        depth = np.asarray(_open(depth_path))
        if depth.ndim != 2 or depth.shape != color.shape[:2] or depth.min() < 0 or depth.max() > 65535:
            raise BadInput(
                f"{depth_path} is {depth.dtype} {depth.shape}; give 16-bit mm, {color.shape[:2]} as its color image"
            )
        return color, depth_to_metres(depth.astype(np.uint16))

    def rewind(self) -> bool:
        """From the first picture again."""
        self._next = 0
        return True

    def close(self) -> None:
        """Nothing is held open."""


class VideoSource:
    """Color images of a video file or a V4L2 device, through OpenCV."""

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        """Open a video file, or a device such as /dev/video0 at `size` = (width, height) px."""
        try:
            import cv2
        except ImportError as error:
            raise BadInput("video files and devices need OpenCV: pip install 'embodied-vision[camera]'") from error
        self._cv2 = cv2
        self._path = path
        self._is_device = path.is_char_device()
        if not path.exists():
            raise BadInput(f"{path} does not exist; give a video file or a device such as /dev/video0")
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_V4L2) if self._is_device else cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise BadInput(f"{path} cannot be opened as video; is the device in use, or the codec unknown?")
        if self._is_device:
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def read(self) -> Images | None:
        """The next image; waits for the device."""
        ok, bgr = self._capture.read()
        if not ok:
            if self._is_device:
                raise BadInput(f"{self._path} gives no more images; is it still plugged in?")
            return None
        color = np.ascontiguousarray(bgr[..., ::-1], np.uint8)
        return color, _no_depth(color)

    def rewind(self) -> bool:
        """From the first image again; a device cannot."""
        return not self._is_device and bool(self._capture.set(self._cv2.CAP_PROP_POS_FRAMES, 0))

    def close(self) -> None:
        """Close the file or device."""
        self._capture.release()


def open_source(path: str | Path, size: tuple[int, int]) -> Source:
    """A folder of pictures, or a video file or device at `size` = (width, height) px.

    Raises:
        BadInput: there is nothing usable.
    """
    if not str(path):
        raise BadInput("no source given; give a folder of pictures, a video file or a device such as /dev/video0")
    place = Path(path).expanduser()
    return FolderSource(place) if place.is_dir() else VideoSource(place, size)


def fit(images: Images, size: tuple[int, int]) -> Images:
    """Both images scaled to `size` = (width, height) px: color bilinear, depth by its nearest pixel."""
    color, depth = images
    if (color.shape[1], color.shape[0]) == size:
        return images
    resized = np.array(Image.fromarray(color).resize(size, Image.Resampling.BILINEAR), np.uint8)
    return resized, np.array(Image.fromarray(depth).resize(size, Image.Resampling.NEAREST), np.float32)


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)


def _open(path: Path) -> Image.Image:
    try:
        picture = Image.open(path)
        picture.load()
        return picture
    except (OSError, UnidentifiedImageError) as error:
        raise BadInput(f"{path} cannot be read as a picture ({error}); remove or replace it") from error
