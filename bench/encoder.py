"""What features cost: the runtimes beside bare ONNX Runtime and torch, on the shipped encoder and a ViT-S/14.

`make bench-encoder` measures, `make bench-encoder SMALL=1` in the smallest form. One JSON line a figure. The ViT has
the size of DINOv2 ViT-S/14 and random weights, which cost the same; its features are compared with torch's all the
same. All runtimes of one network are timed in turns, so that whatever else happens hits them alike. `--keep FOLDER`
leaves the networks there, so that a policy can be trained with `vit` and what was timed be gated with it
(docs/encoders.md).
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from timeit import repeat
from typing import Any

import numpy as np
import onnxruntime
import torch
import transformers
import typer
from numpy.typing import NDArray
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from embodied_vision.cores import use_cores
from embodied_vision.encoders.budget import settings_of
from embodied_vision.encoders.dense import TiledEncoder
from embodied_vision.encoders.export import MODEL, Parity, export, parity, sample_images
from embodied_vision.encoders.exported import ExportedEncoder
from embodied_vision.encoders.huggingface import HuggingFaceEncoder
from embodied_vision.encoders.region import (
    Region,
    computed,
    cut,
    encode_frame,
    partial_features,
    paste,
    prepare_seen,
    window_around,
)
from embodied_vision.encoders.registry import load_encoder
from embodied_vision.encoders.runtimes import CACHE_VARIABLE, EXACT, Setting
from embodied_vision.learning.environments import make_env
from embodied_vision.learning.seeds import scene_seed
from embodied_vision.types import RGBD, Workspace

TARGET_MS = 25.0
"""For the shipped encoder at 224 x 224."""
TARGET_BARE, TARGET_FASTER = 1.05, 3.0
"""Time of the best exact runtime against bare ONNX Runtime, and torch's eager attention against the fastest."""
SIZES = ((224, 224), (240, 424), (480, 640))
"""Rows and columns of the images that the shipped encoder is timed on."""
QUARTER = Workspace(x=(0.372, 0.628), y=(-0.256, 0.256), z=(-0.02, 0.05))
"""Of the workspace, with what lies low."""
VIT = {
    "hidden_size": 384,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "patch_size": 14,
    "image_size": 518,
    "layerscale_value": 1.0,
}
PROCESSOR = {
    "size": {"shortest_edge": 224},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "rescale_factor": 1 / 255,
}
Call = Callable[[], object]


def figure(name: str, value: float, unit: str, reference: str, reference_value: float, **more: object) -> None:
    """Print one figure."""
    line = {"bench": "encoder", "figure": name, "value": round(value, 4), "unit": unit, "reference": reference}
    ratio = round(value / reference_value, 4) if reference_value else None
    print(json.dumps({**line, "reference_value": round(reference_value, 4), "ratio": ratio, **more}), flush=True)


def in_turns(calls: dict[str, Call], rounds: int) -> dict[str, tuple[float, float]]:
    """Median and 95th percentile of each call in ms; every round makes each of them once."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - begun) * 1e3)
    return {name: (float(np.median(found)), float(np.percentile(found, 95))) for name, found in times.items()}


def peak(dtype: torch.dtype, rounds: int) -> float:
    """GFLOP/s of a large matrix product, the best of some rounds and of two libraries.

    torch.mm goes to MKL, which leaves half of what other makers' processors can do; a 1x1 convolution goes to oneDNN.
    """
    side = 2048
    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
    image = a.t().reshape(1, side, 64, side // 64).to(memory_format=torch.channels_last)
    kernel = b.reshape(side, side, 1, 1).to(memory_format=torch.channels_last)
    products = (partial(torch.mm, a, b), partial(torch.nn.functional.conv2d, image, kernel))
    with torch.inference_mode():
        best = min(min(repeat(product, product, number=1, repeat=min(rounds, 8))) for product in products)
    return 2 * side**3 / best / 1e9


def bare(model: Path, threads: int, pixels: NDArray[np.float32]) -> Call:
    """ONNX Runtime as its own documentation starts it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: pixels})


def runtimes(folder: Path) -> dict[str, ExportedEncoder]:
    """Every runtime of an artefact that opens here."""
    return {one.name: ExportedEncoder.load(folder, one.name, trial=True) for one in settings_of(folder)}


def vision_transformer(scratch: Path, blocks: int) -> HuggingFaceEncoder:
    """A ViT-S/14 of random weights, or one with fewer blocks."""
    torch.manual_seed(0)
    folder = scratch / "vit"
    transformers.Dinov2Model(transformers.Dinov2Config(**VIT, num_hidden_layers=blocks)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return HuggingFaceEncoder(str(folder))


def cell_frames(count: int) -> list[RGBD]:
    """What the cell's camera sees of training scenes."""
    environment: Any = make_env("block-insertion", renderer="software")
    try:
        frames = []
        for index in range(count):
            environment.reset(seed=scene_seed("train", 400_000 + index))
            frames.append(environment.unwrapped.frames()[0])
        return frames
    finally:
        environment.close()


def bench_vit(scratch: Path, threads: int, rounds: int, blocks: int, merge: int) -> None:
    """ViT-S/14 at 224 x 224: torch, bare ONNX Runtime, and ours, exact and with all that makes it compute less.

    Cosines are those of the workspace's patches in a frame that nothing was calibrated on, to torch's features.
    """
    encoder = vision_transformer(scratch, blocks)
    *logged, frame = cell_frames(4)
    prepared, wanted = prepare_seen(encoder.front, Region(), frame.color, frame.camera)
    region = None if wanted.all() else Region()  # the cell's camera looks at nothing but the workspace
    folder = scratch / "vit-exported"
    export(
        encoder,
        folder,
        [one.color for one in logged],
        threads=threads,
        reduced=True,
        merge=[merge] if blocks > 1 else [],  # nothing is merged after the last block
        region=region,
        cameras=[one.camera for one in logged] if region is not None else [],
    )
    ours = {setting: ExportedEncoder.load(folder, setting.name, trial=True) for setting in settings_of(folder)}
    pixels = prepared.pixels
    x = torch.from_numpy(pixels)

    def with_attention(kind: str) -> Call:
        def run() -> object:
            encoder._model.set_attn_implementation(kind)
            with torch.inference_mode():
                return encoder.graph(x)

        return run

    def with_runtime(one: ExportedEncoder) -> Call:
        if one.part is None:
            return partial(one._runtime.run, pixels)
        taken = one.part.take(encoder.front, frame.color, frame.camera)
        assert taken is not None, "exported for this camera"
        return partial(one._runtime.run, taken.pixels, taken.keep)

    calls: dict[str, Call] = {"torch, eager attention": with_attention("eager"), "torch, fused": with_attention("sdpa")}
    calls["bare ONNX Runtime"] = bare(folder / MODEL, threads, pixels)
    calls |= {setting.name: with_runtime(one) for setting, one in ours.items()}
    found = in_turns(calls, rounds)

    def operations(setting: Setting) -> int:
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            if setting.region:
                partial_features(encoder, pixels, wanted, setting.merge or None)
            else:
                encoder.graph(x, merge=setting.merge or None)
        return counter.get_total_flops()

    rates = {"float32": peak(torch.float32, rounds), "bfloat16": peak(torch.bfloat16, rounds)}
    eager, plain = found["torch, eager attention"][0], found["bare ONNX Runtime"][0]
    reference = encoder.encode(frame.color).grid[wanted]
    near: dict[str, Parity] = {}
    settings = {setting.name: setting for setting in ours}
    for name, (median, p95) in found.items():
        setting = settings.get(name, Setting(EXACT[0]))  # torch and bare ONNX Runtime compute the exact network
        more: dict[str, Any] = {"p95": round(p95, 2), "threads": threads, "faster_than_eager": round(eager / median, 2)}
        if setting.precision in rates:
            share = operations(setting) / median / 1e6 / rates[setting.precision]
            more["share_of_matrix_product"] = round(share, 3)
        if name in settings:
            near[name] = parity(encode_frame(ours[setting], frame).grid[wanted], reference)
            more |= {"cosine": round(near[name].cosine, 6), "max_error": round(near[name].max_error, 6)}
        figure(f"ViT-S/14 at 224, {name}", median, "ms", "bare ONNX Runtime", plain, **more)
    best = min((name for name in EXACT if name in found), key=lambda name: found[name][0])
    about = {"runtime": best, "target": TARGET_BARE}
    figure("best exact runtime", found[best][0], "ms", "bare ONNX Runtime", plain, **about)
    fastest = min((name for name in near if near[name].near), key=lambda name: found[name][0])
    about = {"runtime": fastest, "cosine": round(near[fastest].cosine, 6), "target": round(1 / TARGET_FASTER, 3)}
    figure("fastest that is near enough", found[fastest][0], "ms", "torch, eager attention", eager, **about)
    figure("patches of the workspace", float(wanted.mean()), "share", "whole image", 1.0)
    _, quarter = prepare_seen(encoder.front, Region(QUARTER), frame.color, frame.camera)
    reference = encoder.encode(frame.color).grid[quarter]
    left_out = parity(partial_features(encoder, pixels, quarter)[quarter], reference)
    window = window_around(quarter, (quarter.shape[0], quarter.shape[1]))
    assert window is not None, "as large as it has to be"
    cropped = computed(encoder, cut(pixels, window, encoder.front.stride_px))[0]
    in_window = parity(paste(cropped, window, quarter)[quarter], reference)
    part = {"patches": round(float(quarter.mean()), 3)}
    figure("quarter of the workspace, tokens left out", left_out.cosine, "cosine", "window", in_window.cosine, **part)
    for name, rate in rates.items():
        figure(f"matrix product, {name}", rate, "GFLOP/s", "float32", rates["float32"])


def bench_shipped(scratch: Path, threads: int, rounds: int, sizes: int) -> None:
    """The shipped encoder from image to features, at so many of the sizes."""
    encoder: Any = load_encoder()
    for rows, columns in SIZES[:sizes]:
        image = sample_images((rows, columns), 1)[0]
        folder = scratch / f"shipped-{rows}"
        export(encoder, folder, sample_images((rows, columns)), threads=threads, reduced=True)
        calls: dict[str, Call] = {"torch": partial(encoder.encode, image)}
        calls |= {name: partial(one.encode, image) for name, one in runtimes(folder).items()}
        for name, (median, p95) in in_turns(calls, rounds).items():
            about = {"p95": round(p95, 2), "threads": threads}
            title = f"shipped encoder at {columns}x{rows}, {name}"
            figure(title, median, "ms", "target at 224x224", TARGET_MS, **about)


def bench_tiles(rows: int, rounds: int) -> None:
    """A large image in tiles of 512 px."""
    columns = rows * 16 // 9
    tiled, image = TiledEncoder(load_encoder(), 512, 128), sample_images((rows, columns), 1)[0]
    tracemalloc.start()
    tiled.encode(image)
    used = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    median = in_turns({"tiled": partial(tiled.encode, image)}, min(rounds, 3))["tiled"][0]
    memory = {"memory_MB": round(used, 1), "image_MB": round(image.nbytes / 1e6, 1)}
    pixels_ms = TARGET_MS * rows * columns / 224**2
    figure(f"{columns}x{rows} in tiles of 512 px", median, "ms", "target a pixel", pixels_ms, **memory)


def main(
    rounds: int = typer.Option(40, min=1, help="How often each is timed."),
    threads: int = typer.Option(2, min=1, help="CPU threads."),
    sizes: int = typer.Option(len(SIZES), min=1, max=len(SIZES), help="Sizes of images for the shipped encoder."),
    blocks: int = typer.Option(12, min=1, max=12, help="Blocks of the vision transformer; 12 is a ViT-S."),
    rows: int = typer.Option(2160, min=512, help="Rows of the large image."),
    merge: int = typer.Option(8, min=1, help="Pairs of tokens merged a block."),
    keep: Path | None = typer.Option(
        None, help="Folder for the networks that were timed: vit, vit-exported, ….", show_default="thrown away"
    ),
) -> None:
    """Time the encoders' runtimes in turns."""
    use_cores(threads)
    console = Console(stderr=True)
    with ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-encoder-")))
        os.environ[CACHE_VARIABLE] = str(folder)
        console.print("shipped encoder …")
        bench_shipped(folder, threads, rounds, sizes)
        console.print("ViT-S/14 …")
        bench_vit(folder, threads, rounds, blocks, merge)
    console.print("tiles …")
    bench_tiles(rows, rounds)


if __name__ == "__main__":
    typer.run(main)
