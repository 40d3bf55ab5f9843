"""`embodied-vision encoder distill`: a larger teacher's dense features in the compact network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embodied_vision.cli import encoder_training as shared
from embodied_vision.cli.encoder_frames import TASKS, progress_bar


def distill_command(
    teacher: Annotated[
        str,
        typer.Argument(
            help="A folder, a hub name with options such as facebook/dinov2-small+size=448, or efficientnet-lite0."
        ),
    ],
    output: shared.Output = Path("runs/distilled/encoder"),
    run: shared.Run = Path("runs/distilled"),
    episodes: shared.Episodes = None,
    task: shared.Tasks = list(TASKS),  # noqa: B006 - typer copies it
    scenes: shared.Scenes = 200,
    views: shared.Views = 4,
    look: shared.Looks = list(shared.PLAIN),  # noqa: B006
    objective: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=WEIGHT",
            help="Weight of the teacher's features, `teacher=1`, beside the objectives of `encoder pretrain`; repeat "
            "for several.",
            show_default="teacher=1",
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
    """Distill any larger encoder into the compact one, or into an adapter of a transformers model, on simulated scenes
    or on logged episodes.

    The teacher encodes each frame once; its features are kept in the run's folder under its id.
    """
    from embodied_vision.cores import use_cores
    from embodied_vision.encoders.pretrain import TEACHER, Pretraining, check
    from embodied_vision.encoders.registry import load_encoder
    from embodied_vision.encoders.teacher import TeacherFeatures
    from embodied_vision.errors import BadInput
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
        objectives=shared.weights_of_objectives(objective, {TEACHER: 1.0}),
    )
    check(settings, taught=True, trained=trained)
    if TEACHER not in settings.objectives:
        raise BadInput("no weight for the teacher; give --objective teacher=1 too, or use `encoder pretrain`")
    encoder = load_encoder(teacher)
    with exclusive(run / "lock", f"another training works in {run}; give another --run"):
        frames = shared.frames_of(run, episodes, task, scenes, views, look)
        taught = TeacherFeatures(run / "teacher", encoder, frames)
        with progress_bar() as bar:
            encoding = bar.add_task("encoding with the teacher", total=len(frames), note="scenes")
            for done in taught.fill():
                bar.update(encoding, completed=done)
        training = Pretraining(settings, frames, trained, taught)
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
            teacher={"name": teacher, "encoder_id": encoder.encoder_id},
        )
