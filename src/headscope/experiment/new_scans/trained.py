"""A finished run as what it was trained to be: how it slices, and its network."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from headscope.errors import InputError, RunError
from headscope.manifest import DAMAGE, reason_of
from headscope.models.network import Network, build_network
from headscope.models.state import load_state
from headscope.record import MODEL, Run, open_network
from headscope.slicing.spec import GEOMETRY, SliceSpec
from headscope.training.device import find_device
from headscope.training.features import EXTRACT_BATCH
from headscope.training.loader import SliceInputs
from headscope.training.loop import extract


@dataclass(frozen=True, eq=False)
class Passed:
    """What a network makes of n slices: features (n, D), logits (n, K), and maps if asked for.

    maps (n, C, h, w) are the last feature maps.
    """

    features: NDArray[np.float32]
    logits: NDArray[np.float32]
    maps: NDArray[np.float32] | None = None


def slicing_of(run: Run) -> tuple[SliceSpec, str]:
    """Return how the run took its slices, and of what: scans, pictures or both."""
    stored = run.settings.get("slicing")
    if not isinstance(stored, dict) or stored.get("version") != GEOMETRY:
        raise InputError(
            f"{run.path} was sliced by a different version of headscope; train it again."
        )
    size = run.settings["slice_size"]
    try:
        return SliceSpec.from_settings(stored | {"size": int(size)}), str(stored["of"])
    except DAMAGE as error:
        raise InputError(f"{run.path / 'run.toml'} is damaged ({reason_of(error)}).") from None


def load_network(run: Run, device: str = "auto") -> Network:
    """Return the trained network of a run, in eval mode; InputError where it keeps none."""
    if run.is_rival:
        raise InputError(f"{run.path} is a simple rival, no network: it predicts no new scans.")
    if not run.keeps_network:
        raise InputError(
            f"{run.path} keeps no network (model.safetensors): it was trained with "
            "keep_model = false, or on permuted labels."
        )
    network = build_network(
        run.settings["architecture"],
        "scratch",  # its weights follow from the run
        "random",
        classes=len(run.class_names),
        size=int(run.settings["slice_size"]),
        seed=0,
    )
    try:
        with open_network(run) as tensors:
            load_state(network.model, {name: torch.from_numpy(tensors[name]) for name in tensors})
    except (SafetensorError, *DAMAGE, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        reason = reason_of(error)
        raise InputError(
            f"The network of {run.path} is damaged or of another network ({reason})."
        ) from None
    if not np.array_equal(network.head.weight.detach().numpy(), run.head["weight"]):
        raise InputError(
            f"{run.path} has another classifier in {MODEL} than in head.npz beside it: one of them "
            "has changed since it was trained."
        )
    network.model.to(find_device(device)).eval()
    return network


@torch.inference_mode()
def pass_slices(
    network: Network, pixels: NDArray[np.uint8], run: Run, *, maps: bool = False
) -> Passed:
    """Pass slices (n, H, W) through a run's network; RunError where it gives no numbers."""
    architecture, device = network.architecture, network.head.weight.device
    inputs = SliceInputs(pixels, architecture.mean, architecture.std, device)
    rows, outputs = np.arange(len(pixels)), [network.map_layer] if maps else []
    features, logits, last = [], [], []
    for _, read, activations in extract(
        network.model,
        inputs,
        rows,
        EXTRACT_BATCH,
        outputs=[name for name in outputs if name],
        of=network.classifier,
    ):
        features.append(read.cpu())
        logits.append(network.head(read).cpu())
        last += [output.cpu() for output in activations.values()]
    joined = torch.cat(logits).numpy()
    if not np.isfinite(joined).all():
        raise RunError(f"The network of {run.path} gives no finite numbers: train it again.")
    return Passed(
        torch.cat(features).numpy(), joined, torch.cat(last).contiguous().numpy() if last else None
    )
