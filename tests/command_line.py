"""Verbs of the command line, called with words as a user gives them, in this process."""

from __future__ import annotations

import json
from typing import Any

import typer
from typer.testing import CliRunner, Result

from embodied_vision.errors import EmbodiedVisionError


def call(app: typer.Typer, *arguments: object, answer: str | None = None) -> Result:
    """Whatever becomes of it; `answer` is what the user types when asked."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=answer)


def prints(app: typer.Typer, *arguments: object, code: int = 0) -> str:
    """Standard output of a verb that ends with `code`; an error is raised as it is."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


def figures(app: typer.Typer, *arguments: object) -> Any:
    """The JSON on the last line of a verb's output."""
    return json.loads(prints(app, *arguments).splitlines()[-1])


def fails(app: typer.Typer, *arguments: object) -> EmbodiedVisionError:
    """The error that a verb ends with."""
    result = call(app, *arguments)
    assert isinstance(result.exception, EmbodiedVisionError), result.output
    return result.exception
