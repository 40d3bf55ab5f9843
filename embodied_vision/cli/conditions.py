"""Options about the conditions under which scenes are run, shared by several verbs."""

from __future__ import annotations

from enum import StrEnum


class Preset(StrEnum):
    """Presets of the domain randomisation; see docs/simulation.md."""

    NONE = "none"
    MILD = "mild"
    STRONG = "strong"


class RendererName(StrEnum):
    """Who draws the pictures."""

    AUTO = "auto"
    EGL = "egl"
    SOFTWARE = "software"
