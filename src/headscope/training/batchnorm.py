"""BatchNorm statistics estimated once on the training slices, as frozen-adabn needs them."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from headscope.console import track
from headscope.models.network import Network
from headscope.training.device import autocast, fixed_batch
from headscope.training.loader import Inputs, batches

STATISTICS_BATCH = 32


@torch.no_grad()
def estimate_statistics(
    network: Network,
    inputs: Inputs,
    rows: NDArray[np.int64],
    title: str,
    *,
    precision: str = "float32",
) -> None:
    """Estimate the mean and variance of every BatchNorm layer from slices `rows` alone.

    One pass in the order of `rows`, in which every batch has the same weight (PyTorch's cumulative
    average, momentum None). Everything but BatchNorm is in eval mode; afterwards the whole network
    is (Li et al. 2016, AdaBN).

    Raises
    ------
    NoRoomError
        A batch does not fit into the memory.
    """
    layers = _layers(network.model)
    momenta = [layer.momentum for layer in layers.values()]
    network.model.eval()
    for layer in layers.values():
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    parts = batches(np.sort(rows), STATISTICS_BATCH) if layers else []
    for part in track(parts, f"{title}: BatchNorm", total=len(parts)):
        with fixed_batch(len(part), network.head.weight.device):
            x = inputs(part)
            with autocast(precision, x.device):
                network.model(x)
    for layer, momentum in zip(layers.values(), momenta, strict=True):
        layer.momentum = momentum
    network.model.eval()


def statistics(model: nn.Module) -> dict[str, NDArray[Any]]:
    """Return the buffers of every BatchNorm layer, by path."""
    return {name: buffer.cpu().numpy().copy() for name, buffer in _buffers(model).items()}


@torch.no_grad()
def set_statistics(model: nn.Module, stored: dict[str, NDArray[Any]]) -> None:
    """Put stored buffers back into the BatchNorm layers."""
    for name, buffer in _buffers(model).items():
        buffer.copy_(torch.from_numpy(stored[name]))


def _buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        f"{path}.{name}": buffer
        for path, layer in _layers(model).items()
        for name, buffer in layer.named_buffers()
    }


def _layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """Return the BatchNorm layers that hold statistics, by path."""
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }
