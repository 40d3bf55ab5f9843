"""Tasks by name."""

from __future__ import annotations

from embodied_vision.errors import BadInput
from embodied_vision_sim.tasks.align_box_corner import AlignBoxCorner
from embodied_vision_sim.tasks.assembling_kits import AssemblingKits
from embodied_vision_sim.tasks.base import Task
from embodied_vision_sim.tasks.block_insertion import BlockInsertion
from embodied_vision_sim.tasks.manipulating_rope import ManipulatingRope
from embodied_vision_sim.tasks.packing_boxes import PackingBoxes
from embodied_vision_sim.tasks.palletizing_boxes import PalletizingBoxes
from embodied_vision_sim.tasks.place_red_in_green import PlaceRedInGreen
from embodied_vision_sim.tasks.reject_worn import RejectWorn
from embodied_vision_sim.tasks.sort_striped import SortStriped
from embodied_vision_sim.tasks.stack_block_pyramid import StackBlockPyramid
from embodied_vision_sim.tasks.stack_by_pattern import StackByPattern
from embodied_vision_sim.tasks.sweeping_piles import SweepingPiles
from embodied_vision_sim.tasks.towers_of_hanoi import TowersOfHanoi

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        BlockInsertion,
        PlaceRedInGreen,
        AlignBoxCorner,
        StackBlockPyramid,
        TowersOfHanoi,
        PackingBoxes,
        PalletizingBoxes,
        AssemblingKits,
        ManipulatingRope,
        SweepingPiles,
        SortStriped,
        StackByPattern,
        RejectWorn,
    )
}


def make_task(name: str) -> Task:
    """A new task by name.

    Raises:
        BadInput: unknown name.
    """
    if name not in TASKS:
        raise BadInput(f"task {name!r} is unknown; choose one of {', '.join(sorted(TASKS))}")
    return TASKS[name]()
