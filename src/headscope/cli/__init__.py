"""The command line: parse, call, print. A command imports what is heavy only when it runs."""

from headscope.cli import (  # noqa: F401 (their commands join the app)
    ablate,
    cohorts,
    evaluate,
    experiments,
    head,
    models,
    score,
)
from headscope.cli.app import app, main

__all__ = ["app", "main"]
