"""`embodied-vision encoder pretrain`: train the compact encoder, or an adapter of a larger one, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embodied_vision.cli import encoder_training as shared
from embodied_vision.cli.encoder_frames import TASKS


def pretrain_command(
    output: shared.Output = Path("runs/encoder/encoder"),
    run: shared.Run = Path("runs/encoder"),
    episodes: shared.Episodes = None,
    task: shared.Tasks = list(TASKS),  # noqa: B006 - typer copies it
    scenes: shared.Scenes = 200,
    views: shared.Views = 4,
    look: shared.Looks = list(shared.PLAIN),  # noqa: B006
    objective: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=WEIGHT",
            help="What to train for: match (the same point in two views), describe (its height and color), masked "
            "(hidden patches out of what is around them), self-distillation (soft clusters, in the style of DINO); "
            "repeat for several.",
            show_default="match=1, describe=0.5",
        ),
    ] = [],  # noqa: B006
    appearance: shared.AppearanceName = "mild",
    poses: shared.Poses = True,
    backbone: shared.Backbone = "",
    adapter_rank: shared.AdapterRank = None,
    dimension: shared.Dimension = None,
    trunk: shared.Trunk = "",
    steps: shared.Steps = 1000,
    learning_rate: shared.Rate = None,
    probe_scenes: shared.ProbeScenes = 40,
    seed: shared.Seed = 0,
    threads: shared.Threads = 2,
    resume: shared.Resume = False,
    save_every: shared.SaveEvery = 20.0,
    as_json: shared.AsJson = False,
) -> None:
    """Train the compact encoder, or a low-rank adapter of a transformers model, without labels, on simulated scenes or
    on logged episodes.
    """
    from embodied_vision.cores import use_cores
    from embodied_vision.encoders.pretrain import USUAL, Pretraining, check
    from embodied_vision.locks import exclusive

    use_cores(threads)
    state = shared.check_run(run, resume)
    trained = shared.what_is_trained(backbone, adapter_rank, dimension, trunk)
    settings = shared.settings_for(
        trained,
        steps=steps,
        seed=seed,
        appearance=appearance,
        poses=poses,
        learning_rate=learning_rate,
        objectives=shared.weights_of_objectives(objective, USUAL),
    )
    check(settings, taught=False, trained=trained)
    with exclusive(run / "lock", f"another training works in {run}; give another --run"):
        frames = shared.frames_of(run, episodes, task, scenes, views, look)
        training = Pretraining(settings, frames, trained)
        if resume:
            training.restore(state)
        shared.train(training, state, run / "tensorboard", save_every)
        shared.finish(
            training,
            output,
            run,
            frames.source,
            tasks=task,
            probe_scenes=probe_scenes if episodes is None else 0,
            as_json=as_json,
        )
