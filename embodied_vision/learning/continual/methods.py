"""The ways to learn on that are compared: ours, the usual baselines, and what bounds them.

All train the same shared head with the same steps, examples, augmentation and rates; they differ in what is kept of
earlier experience, what is asked of it, and which weights may change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from embodied_vision.errors import BadInput


@dataclass(frozen=True)
class Method:
    """A way to learn on.

    Attributes:
        name: as it is chosen.
        about: one sentence.
        keeps: of earlier experience: nothing, evenly drawn or stratified examples within a budget, or everything.
        distils: what the old outputs on replayed examples are taken from: nothing, the head as it was before this
            update, or logits that were kept with the examples.
        guards: which weights of the trunk are held: none, important ones softly, or those of earlier tasks strictly.
        apart: whether each task starts from new weights.
        at_once: whether all tasks are learnt together, as if there were no order.
    """

    name: str
    about: str
    keeps: Literal["nothing", "reservoir", "stratified", "everything"] = "nothing"
    distils: Literal["nothing", "former", "kept"] = "nothing"
    guards: Literal["nothing", "ewc", "packnet"] = "nothing"
    apart: bool = False
    at_once: bool = False


METHODS = {
    method.name: method
    for method in (
        Method(
            "product",
            "stratified replay, hard and unlike examples first, with the former head's outputs as targets",
            keeps="stratified",
            distils="former",
        ),
        Method("sequential", "fine-tuning on the new task alone"),
        Method("er", "experience replay (Chaudhry et al., 2019)", keeps="reservoir"),
        Method("derpp", "DER++ (Buzzega et al., 2020)", keeps="reservoir", distils="kept"),
        Method("ewc", "elastic weight consolidation (Kirkpatrick et al., 2017)", guards="ewc"),
        Method("packnet", "PackNet (Mallya & Lazebnik, 2018)", guards="packnet"),
        Method("joint", "everything is kept and replayed: the ceiling", keeps="everything"),
        Method("multitask", "all tasks at once from new weights, as many steps in all", at_once=True),
        Method("single", "each task from new weights: what forward transfer is measured against", apart=True),
    )
}


def method_of(name: str) -> Method:
    """The method of a name.

    Raises:
        BadInput: there is none.
    """
    if name not in METHODS:
        raise BadInput(f"method {name!r} is unknown; choose of {', '.join(METHODS)}")
    return METHODS[name]
