"""The two ways in which headscope gives up: the input is wrong, or the work failed."""


class InputError(ValueError):
    """Something the user gave is wrong: one sentence naming file, value and valid choices.

    The command line prints it without a traceback and exits with code 2.

    Examples
    --------
    >>> try:
    ...     hs.inspect("nowhere")
    ... except hs.InputError as error:
    ...     print(error)
    nowhere does not exist.
    """


class RunError(RuntimeError):
    """The input was right and the work still failed (diverged, tampered with): exit code 1.

    Examples
    --------
    >>> try:
    ...     raise hs.RunError("The loss is no longer finite in epoch 2.")
    ... except hs.RunError as error:
    ...     print(error)
    The loss is no longer finite in epoch 2.
    """
