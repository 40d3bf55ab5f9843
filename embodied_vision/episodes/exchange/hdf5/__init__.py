"""HDF5 in robomimic's layout, one file. https://robomimic.github.io/docs/datasets/overview.html"""

from embodied_vision.episodes.exchange.hdf5.read import import_
from embodied_vision.episodes.exchange.hdf5.write import export

__all__ = ["export", "import_"]
