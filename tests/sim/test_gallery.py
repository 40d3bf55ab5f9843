"""docs/tasks.md says what the tasks say, and its pictures show an expert at work."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import typer

from embodied_vision.errors import BadInput, RunFailed
from embodied_vision_sim import gallery
from embodied_vision_sim.registration import ENV_IDS
from tests.command_line import prints

DOCS = Path(__file__).parents[2] / "docs"

app = typer.Typer()
app.command()(gallery.command)
run = partial(prints, app)


def test_the_page_is_up_to_date() -> None:
    run("--check", "--docs", str(DOCS))


def test_an_outdated_page_or_a_missing_picture_is_noticed(tmp_path: Path) -> None:
    for entry in gallery.entries():
        if entry.drawn:
            path = tmp_path / "images" / "tasks" / f"{entry.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (tmp_path / "tasks.md").write_text(gallery.page(), encoding="utf-8")
    run("--check", "--docs", str(tmp_path))
    (tmp_path / "images" / "tasks" / "block-insertion.png").unlink()
    with pytest.raises(
        RunFailed, match=r"out of date \(block-insertion\); run `python -m embodied_vision_sim.gallery`"
    ):
        run("--check", "--docs", str(tmp_path))
    (tmp_path / "images" / "tasks" / "block-insertion.png").touch()
    (tmp_path / "tasks.md").write_text(gallery.page().replace("L-shaped", "round"), encoding="utf-8")
    with pytest.raises(RunFailed, match=r"out of date \(text\)"):
        run("--check", "--docs", str(tmp_path))


def test_every_task_is_on_the_page() -> None:
    page = gallery.page()
    for task, env_id in ENV_IDS.items():
        assert f"## {task}\n" in page
        assert f"`{env_id}`" in page
    assert "tolerance 1 cm; tolerance 15°" in page
    with pytest.raises(BadInput, match="juggling is no task"):
        run("--only", "juggling")


def test_pictures_show_the_scene_change_and_are_the_same_each_time() -> None:
    (entry,) = (entry for entry in gallery.entries() if entry.name == "block-insertion")
    one, two = (np.asarray(gallery.picture(entry).convert("RGB"), int) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.shape == (240, 960, 3)
    start, halfway, solved = np.split(one, 3, axis=1)
    for a, b in ((start, halfway), (halfway, solved), (start, solved)):
        assert (abs(a - b).max(axis=2) > 60).sum() > 200
