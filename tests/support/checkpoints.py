"""Sound checkpoints of every format: npz, safetensors, torch's zip and its older row of pickles."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file


def network(classes=3, width=8):
    """Return a network in miniature, whose final layer is fc."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"conv.weight": (4, 3, 3, 3), "fc.weight": (classes, width), "fc.bias": (classes,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def sound_checkpoints(folder: Path, state=None) -> dict[str, bytes]:
    """Write a checkpoint of each format; return their bytes by suffix."""
    state = network() if state is None else state
    numbers = {name.removeprefix("fc."): t.numpy() for name, t in state.items() if "fc." in name}
    np.savez(folder / "whole.npz", **numbers)
    save_file(state, folder / "whole.safetensors")
    content = {"state_dict": state, "epoch": 3, "best": np.float64(0.7)}
    torch.save(content, folder / "whole.pth")
    torch.save(content, folder / "whole.old.pt", _use_new_zipfile_serialization=False)
    suffixes = ("npz", "safetensors", "pth", "old.pt")
    return {suffix: (folder / f"whole.{suffix}").read_bytes() for suffix in suffixes}
