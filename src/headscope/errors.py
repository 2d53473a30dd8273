"""The two ways in which headscope gives up: the input is wrong, or the work failed."""


class InputError(ValueError):
    """Something the user gave is wrong: one sentence naming file, value and valid choices.

    The command line prints it without a traceback and exits with code 2.
    """


class RunError(RuntimeError):
    """The input was right and the work still failed (diverged, tampered with): exit code 1."""
