"""The layers between the last feature maps and the logits of a recorded run."""

from collections.abc import Sequence

import numpy as np

from headscope.errors import InputError
from headscope.record import MODEL, Run, open_network
from headscope.tail import Array, Tail, make_tail

EPSILONS = (1e-6, 1e-5)  # of LayerNorm: timm's and torchvision's networks, then torch's own
CLOSE = 0.02  # of the largest logit: what bfloat16 may cost; wrong layers cost far more


def read_tail(run: Run) -> Tail:
    """Read a run's tail and its weights; InputError where it does not give the recorded logits."""
    words = run.settings.get("tail")
    if not words:
        raise InputError(
            f"{run.name} records no layers between its feature maps and its logits: what it makes "
            f"of positions cannot be computed."
        )
    if "maps" not in run.maps or not len(run.maps["maps"]):
        raise InputError(f"{run.name} records no feature maps.")
    arrays = _weights(run, words)
    logits = run.features["logits"][run.maps["slice"]].astype(np.float64)
    maps = run.maps["maps"].astype(np.float32)
    normalises = any(word.startswith("layernorm:") for word in words)
    tails = []
    for epsilon in EPSILONS if normalises else EPSILONS[:1]:
        tail = make_tail(words, arrays, epsilon)
        try:
            made = tail(maps)
        except ValueError:  # shapes that do not meet
            continue
        if made.shape == logits.shape:
            tails.append(Tail(tail.layers, float(np.abs(made - logits).max())))
    best = min(tails, key=lambda tail: tail.mismatch, default=None)
    if best and best.mismatch <= max(1e-5, CLOSE * float(np.abs(logits).max())):
        return best
    raise InputError(
        f"{run.name}: its feature maps do not give its logits through {', '.join(words)}: what it "
        f"makes of positions cannot be computed."
    )


def _weights(run: Run, words: Sequence[str]) -> dict[str, Array]:
    paths = [word.partition(":")[2] for word in words if not word.startswith("pool:")]
    wanted = [f"{path}.{part}" for path in paths if path for part in ("weight", "bias")]
    name = run.settings.get("classifier")
    classifier = {f"{name}.{part}": run.head[part] for part in ("weight", "bias")}
    if run.keeps_network:
        with open_network(run) as stored:
            return {name: stored[name] for name in wanted if name in stored}
    if set(wanted) <= set(classifier):
        return classifier  # the layers hold nothing else, as where positions are averaged
    raise InputError(
        f"{run.path / MODEL} does not exist: without the network's weights (keep_model) its layers "
        "after the feature maps are not on record."
    )
