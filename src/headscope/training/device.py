"""The device: its precision, random numbers and memory, and a batch that fits into it."""

import contextlib
import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import cast

import torch
from torch import nn

from headscope.errors import InputError, RunError

NO_MEMORY = "can't allocate memory"  # of torch's RuntimeError on a CPU
# mallopt's parameters (glibc, malloc.h): during a training, and glibc's own values after it
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_STEADY = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}
_AFTER = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20}


def find_device(name: str) -> torch.device:
    """Return the device of a setting; "auto" is a GPU where there is one."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("The device 'cuda' is not available; valid here: auto, cpu.")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def precision_of(setting: str, device: torch.device) -> str:
    """Return "float32" or "bfloat16": what "auto" means on this device, or the setting itself."""
    if setting != "auto":
        return setting
    return "bfloat16" if device.type == "cuda" else "float32"


def autocast(setting: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of a forward pass; float32 changes nothing."""
    if precision_of(setting, device) == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def compile_network(model: nn.Module, device: torch.device) -> nn.Module:
    """Return what torch.compile makes of a network; on a GPU its kernels run as CUDA graphs.

    Batches have two sizes at most: a graph for each, rather than one for any size.
    """
    how = "reduce-overhead" if device.type == "cuda" else "default"
    return cast(nn.Module, torch.compile(model, mode=how, dynamic=False))


def seed_step(seed: int, device: torch.device) -> None:
    """Seed the generators that a step on `device` draws from."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes 70 times as long
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


@contextlib.contextmanager
def steady_memory(device: torch.device) -> Iterator[None]:
    """Hold freed memory between the steps of a training on a CPU, where glibc allocates it.

    glibc returns large blocks to the system at once, and every step pays for cleared pages again:
    a fifth of a step of GoogLeNet at 224.
    """
    libc = ctypes.CDLL(None) if device.type == "cpu" and sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):
        yield
        return
    assert libc is not None
    for parameter, value in _STEADY.items():
        libc.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in _AFTER.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)


class NoRoomError(RunError):
    """Out of memory in a pass in eval mode; the training before it is not lost."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is one of those that torch raises when it is out of memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or NO_MEMORY in str(error)


@contextlib.contextmanager
def fixed_batch(size: int, device: torch.device) -> Iterator[None]:
    """Turn running out of memory into advice, for a batch whose size no setting changes."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        return
    elsewhere = "" if device.type == "cpu" else ", another device"
    raise NoRoomError(
        f"The {size} slices that pass through the network at once do not fit into the memory of "
        f"{device}, whatever the batch_size; smaller slices (size), a smaller architecture"
        f"{elsewhere}, or other work ended, may help."
    )


def find_batch_size(step: Callable[[int], object], tried: int) -> int | None:
    """Halve the batch until `step(size)` fits into the memory; None where two slices do not."""
    size = tried // 2
    while size >= 2:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            step(size)
        except torch.OutOfMemoryError:
            size //= 2
        else:
            return size
    return None
