"""LeRobotDataset v3.0, written and read without lerobot. Layout as lerobot 0.4.4 makes it."""

from embodied_vision.episodes.exchange.lerobot.read import import_
from embodied_vision.episodes.exchange.lerobot.write import export

__all__ = ["export", "import_"]
