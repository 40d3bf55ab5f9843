"""A page to click a corrected pick and place on the map that a decision was made on; it needs no server."""

from __future__ import annotations

import base64
import io
import json
import re
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from embodied_vision import geometry
from embodied_vision.episodes.reader import Episode
from embodied_vision.types import Workspace

SCALE = 4
"""Pixels a cell."""


def correction_page(episode: Episode, decision: int, store: Path) -> str:
    """HTML with the top-down map of a decision, its pick and place, and the command that keeps what is clicked.

    Args:
        episode: whose decision it is.
        decision: its number, from 0.
        store: folder of the episode store, for the command.

    Raises:
        BadInput: no frame was logged with the decision.
        EpisodeError: its data are damaged.
    """
    made = episode.decisions[decision]
    workspace = Workspace()
    scene = geometry.fuse_scene(made.frames, [], workspace)
    picture = np.where(scene.valid[..., None], scene.color, np.uint8(40))
    buffer = io.BytesIO()
    Image.fromarray(picture).resize(
        (picture.shape[1] * SCALE, picture.shape[0] * SCALE), Image.Resampling.NEAREST
    ).save(buffer, "PNG")
    poses = {
        name: [float(pose[0, 3]), float(pose[1, 3]), float(np.degrees(geometry.yaw_of(pose)))]
        for name, pose in (("pick", made.action.pick), ("place", made.action.place))
    }
    data = {
        "poses": poses,
        "x": workspace.x[0],
        "y": workspace.y[0],
        "metres": workspace.cell / SCALE,
        "command": f"embodied-vision episodes correct {store} {episode.id} {decision + 1}",
    }
    title = escape(f"{episode.task}, {episode.id}, decision {decision + 1}")
    image = base64.b64encode(buffer.getvalue()).decode()
    values = {
        "title": title,
        "image": image,
        "data": json.dumps(data).replace("<", "\\u003c"),
        "width": str(picture.shape[1] * SCALE),
        "height": str(picture.shape[0] * SCALE),
    }
    return re.sub("@@([a-z]+)@@", lambda found: values[found[1]], _PAGE)


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>@@title@@</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;margin:1.5em;max-width:@@width@@px;background:#fff;color:#222}
canvas{background:url(data:image/png;base64,@@image@@);width:@@width@@px;height:@@height@@px;cursor:crosshair;display:block}
label{margin-right:1.5em}input[type=number]{width:6em}
code{display:block;background:#eee;padding:.6em;white-space:pre-wrap;user-select:all}
</style>
<h1 style="font-size:1.1em">@@title@@</h1>
<p>Seen from above, x down, y to the right. Click where the tip should have gone; turn with the fields. Dashed:
as it was decided.</p>
<p><label><input type="radio" name="which" value="pick" checked> pick (green)</label>
<label><input type="radio" name="which" value="place"> place (pink)</label>
<label>yaw of pick, degrees <input type="number" id="yaw-pick" step="1"></label>
<label>yaw of place, degrees <input type="number" id="yaw-place" step="1"></label></p>
<canvas width="@@width@@" height="@@height@@"></canvas>
<p>Then run this, with your name:</p><code id="command"></code>
<script>
const data = @@data@@, now = structuredClone(data.poses), ink = {pick: "#28dc50", place: "#ff3ca0"};
const canvas = document.querySelector("canvas"), context = canvas.getContext("2d");
function mark(pose, color, dash) {
  const u = (pose[1] - data.y) / data.metres, v = (pose[0] - data.x) / data.metres, a = pose[2] * Math.PI / 180;
  context.strokeStyle = color; context.lineWidth = 2; context.setLineDash(dash);
  context.beginPath(); context.arc(u, v, 8, 0, 7); context.moveTo(u, v);
  context.lineTo(u + 26 * Math.sin(a), v + 26 * Math.cos(a)); context.stroke();
}
function draw() {
  context.clearRect(0, 0, canvas.width, canvas.height);
  let command = data.command;
  for (const name of ["pick", "place"]) {
    mark(data.poses[name], ink[name], [4, 4]); mark(now[name], ink[name], []);
    command += ` --${name}=` + now[name].map((n, i) => n.toFixed(i < 2 ? 4 : 1)).join(",");
  }
  document.getElementById("command").textContent = command + " --by ";
}
canvas.addEventListener("click", event => {
  const box = canvas.getBoundingClientRect(), name = document.querySelector("[name=which]:checked").value;
  now[name][0] = data.x + (event.clientY - box.top) * canvas.height / box.height * data.metres;
  now[name][1] = data.y + (event.clientX - box.left) * canvas.width / box.width * data.metres;
  draw();
});
for (const name of ["pick", "place"]) {
  const field = document.getElementById("yaw-" + name);
  field.value = now[name][2].toFixed(1);
  field.addEventListener("input", () => { now[name][2] = Number(field.value) || 0; draw(); });
}
draw();
</script></html>
"""
