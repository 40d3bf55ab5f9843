"""Embodied Vision: a control stack for robot arms that see."""

__version__ = "0.1.0"
