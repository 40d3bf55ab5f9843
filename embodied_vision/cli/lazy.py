"""Verbs that are imported when they are used: `episodes list` does not wait for PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group


def lazy_group(verbs: Mapping[str, str]) -> type[TyperGroup]:
    """A class for `typer.Typer(cls=...)` whose verbs are imported one at a time. The app needs a callback.

    Args:
        verbs: by name, in the order of the help: "module:attribute", a function or a `typer.Typer` (with a single
            command it is that verb).
    """

    class LazyGroup(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return [*verbs, *(name for name in super().list_commands(ctx) if name not in verbs)]

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if cmd_name in verbs and cmd_name not in self.commands:
                self.commands[cmd_name] = _load(cmd_name, verbs[cmd_name])
            return super().get_command(ctx, cmd_name)

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            if self.get_command(ctx, args[0]) is None:
                for name in verbs:  # mistyped: typer suggests from what is loaded
                    self.get_command(ctx, name)
            return super().resolve_command(ctx, args)

    return LazyGroup


def _load(name: str, where: str) -> Any:
    module, _, attribute = where.partition(":")
    target = getattr(import_module(module), attribute)
    app = typer.Typer()
    if not isinstance(target, typer.Typer):
        app.command(name)(target)
    elif target.registered_callback or len(target.registered_commands) > 1:
        app.add_typer(target, name=name)
    else:  # a verb that asks for a class of its own
        app.registered_commands += target.registered_commands
    return get_group(app).commands[name]
