"""The app that the commands join, and what it makes of errors and of Ctrl-C."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOSPC
from typing import Annotated, Any, Final

import typer

from headscope.cli.streams import plain_streams
from headscope.errors import InputError, RunError
from headscope.signals import STOPPED

RENAMED: Final = {  # option of version 0.1 → what it is now
    "--architecture": "--architectures",
    "--split": "--split-file (a file) or --splits (subject, slice)",
    "--correlation": "--copy-threshold",
    "--pseudonymise": "--pseudonym-key",
    "--yes": "--accept-terms",
}

ORDER: Final = (  # as a user comes to need them
    *("demo", "inspect", "audit", "slice", "run", "report", "figures", "verify", "ablate"),
    *("evaluate", "predict", "score", "track", "export", "head", "models", "simulate", "fetch"),
)


class _InOrder(typer.core.TyperGroup):
    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return sorted(super().list_commands(ctx), key=ORDER.index)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # where `headscope.signals` is not at work: in another program
            print(f"\n{STOPPED}", file=sys.stderr)
            raise typer.Exit(130) from None


app = typer.Typer(
    name="headscope",
    cls=_InOrder,
    help="What did the final layer learn, and should you believe its accuracy?",
    epilog="Begin with: headscope demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(asked: bool) -> None:
    if asked:
        from headscope import __version__

        print(f"headscope {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; a foreseen error is one sentence on stderr, without a traceback."""
    os.environ["MPLBACKEND"] = "agg"  # no window is opened, and a notebook's backend may be absent
    try:
        with plain_streams():
            _run(sys.argv[1:])
    except OSError as error:  # stdout is a file on a full disk
        sys.exit(f"stdout: {error.strerror or error}.")


def _run(arguments: list[str]) -> None:
    try:
        _refuse_old_options(arguments)
        app()
    except (InputError, RunError) as error:
        print(error, file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except SystemExit as ended:
        # the reader of stdout has closed it, as in '| head', which typer ends with 1
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
    except OSError as error:  # a full disk, a folder that may not be written
        text = f"{error.filename or 'The system'}: {error.strerror or error}."
        if error.filename and error.errno == ENOSPC:
            text += " What is finished is kept: the same command does the rest."
        print(text, file=sys.stderr)
        sys.exit(1)
    except MemoryError:
        print("Out of memory; ending other work may help.", file=sys.stderr)
        sys.exit(1)


def _refuse_old_options(arguments: list[str]) -> None:
    for argument in arguments:
        option = argument.partition("=")[0]
        if option in RENAMED:
            raise InputError(f"The option {option} is now {RENAMED[option]}.")


@contextmanager
def loading() -> Iterator[None]:
    """Show that what a command needs is imported."""
    from headscope.console import busy

    with busy("Loading"):
        yield
