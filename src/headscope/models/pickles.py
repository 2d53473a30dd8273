"""Tensors of a torch checkpoint as NumPy arrays, with nothing in the file executed."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from headscope.errors import InputError


def read_pickle(path: Path) -> Any:
    """Read a .pth, .pt, .ckpt or .bin: tensors and plain containers, never code.

    Large tensors stay on disk until they are read, where the file's format allows it.

    Raises
    ------
    InputError
        The file is damaged, or would run code.
    """
    # what torch's reader lets through of files that are no pickles at all: LookupError and more
    errors = (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        EOFError,
        RuntimeError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        OverflowError,
    )
    try:
        mapped = zipfile.is_zipfile(path)  # files of torch before 1.6 cannot be mapped
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickles that torch did not write
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except errors as error:
        known = isinstance(error, pickle.UnpicklingError) and "Weights only" in str(error)
        reason = "it is damaged, or no file of weights"
        if known:
            reason = "it is no file of weights, or one that holds more and could run code"
        raise InputError(
            f"{path} cannot be read as weights ({reason}): headscope takes .safetensors, or a "
            f"torch file that holds tensors and plain settings alone, such as a state dict."
        ) from None


def tensors_of(found: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return the named tensors of a table, leaving out whatever else lies in it."""
    return {str(name): each for name, each in found.items() if isinstance(each, Tensor)}


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor of any float type as float64."""
    return tensor.detach().double().numpy()
