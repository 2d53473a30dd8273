"""A run held against itself: every score and the freeze certificate, from its arrays."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from headscope.files import utf8_path
from headscope.manifest import DAMAGE, reason_of
from headscope.metrics import logit_columns, run_scores, softmax
from headscope.record import (
    MODEL,
    STATE,
    SUBSETS,
    Arrays,
    Run,
    manifest_problems,
    open_network,
    structure_problem,
)

CLOSE: Final = 1e-6  # scores: sums of draws are single precision
ROUNDED: Final = 1e-3  # logits, of the sum of their products' sizes: matrix products may be TF32
RANKS: Final = 5e-3  # ends of intervals of very many ranks: each version rounds those in its way
MANY: Final = 4096  # ranks that no version rounded
RANKED: Final = re.compile(r"(auc|average_precision)\.(low|high)$")


def run_problems(run: Run) -> list[str]:
    """Say how a run differs from its manifest, or else what in it does not follow from the rest."""
    problems = manifest_problems(run)
    if not problems and (problem := structure_problem(run)):
        problems = [problem]
    if problems:
        return problems
    for check in (_numbers, _scores, _rows, _network, _state):
        try:
            problems += check(run)
        except (SafetensorError, *DAMAGE) as error:
            problems.append(reason_of(error))
    return problems


def _numbers(run: Run) -> Iterator[str]:
    """Hold logits, probabilities and settings against the arrays that they come from."""
    features, head, table = run.features, run.head, run.predictions
    logits, names = features["logits"].astype(np.float64), run.class_names
    read, weight = features["features"].astype(np.float64), head["weight"].astype(np.float64)
    sizes = np.abs(read) @ np.abs(weight).T + np.abs(head["bias"])  # (N, K)
    if (np.abs(read @ weight.T + head["bias"] - logits) > ROUNDED * sizes + CLOSE).any():
        yield "the logits are not those that head.npz gives of features.npz"
    stored = table[[f"probability_{name}" for name in names]].to_numpy(np.float64)
    if not np.allclose(stored, softmax(features["logits"]), rtol=0, atol=CLOSE):
        yield "the probabilities of predictions.tsv are not those of its logits"
    subsets = "\n".join(features["subset"].tolist())
    split = run.settings.get("split_sha256")
    if split and split != hashlib.sha256(subsets.encode()).hexdigest():
        yield "the subsets are not those of the split in run.toml"
    if list(run.settings.get("class_names", names)) != names:
        yield "the classes of head.npz are not those of run.toml"


def _scores(run: Run) -> Iterator[str]:
    """Compute every score of `metrics.json` again from `predictions.tsv`."""
    if not set(logit_columns(run.class_names)) <= set(run.predictions):
        return  # of a version that did not write what ranks slices
    aggregate = str(run.settings.get("aggregate", "mean"))
    computed = run_scores(run.predictions, run.class_names, aggregate)
    for subset in SUBSETS:
        stored, again = run.metrics.get(subset), computed.get(subset)
        if (stored is None) != (again is None):
            yield f"metrics.json and predictions.tsv do not have the same subset {subset}"
        elif stored is not None and again is not None:
            many = len(run.predicted(subset)) > MANY
            for place in differing(stored, again, subset, RANKS if many else 0.0):
                yield f"{place} in metrics.json is not what predictions.tsv gives"


def differing(stored: Any, again: Any, place: str, rounded: float = 0.0) -> Iterator[str]:
    """Yield the places where stored scores differ; those that a record lacks are passed over.

    `rounded` is how far the ends of intervals of rankings may differ.
    """
    if isinstance(stored, Mapping) and isinstance(again, Mapping):
        for name in stored.keys() & again.keys():
            yield from differing(stored[name], again[name], f"{place}.{name}", rounded)
    elif isinstance(stored, float | int) and isinstance(again, float | int):
        if not abs(stored - again) <= max(CLOSE, rounded if RANKED.search(place) else 0.0):
            yield place
    elif stored != again:
        yield place


def _rows(run: Run) -> Iterator[str]:
    """Check the epochs, and the slices of which stages and maps are recorded."""
    epochs, count = run.metrics.get("epochs"), len(run.predictions)
    if epochs is not None and epochs != len(run.history):
        yield f"metrics.json has {epochs} epochs, history.jsonl {len(run.history)}"
    seconds = run.metrics.get("train_seconds")
    took = run.history["seconds"].sum() - CLOSE if "seconds" in run.history else 0.0
    if seconds is not None and seconds < took:
        yield "train_seconds in metrics.json is less than the epochs of history.jsonl took"
    for name, arrays in (("layers.npz", run.layers), ("maps.npz", run.maps)):
        rows = arrays.get("slice", np.empty(0, dtype=np.int64))
        if len(rows) and not (rows.min() >= 0 and rows.max() < count):
            yield f"{name} names slices that there are not"
        if any(len(rows) != len(array) for array in arrays.values()):
            yield f"{name} does not have one row for each of its slices"
        if not all(np.isfinite(array).all() for array in arrays.values()):
            yield f"{name} holds values that are no numbers"


def _state(run: Run) -> Iterator[str]:
    """Hold the state from which more epochs continue against `head.npz`."""
    path = run.path / STATE
    if not path.is_file():
        return
    with utf8_path(path) as file:
        state = load_file(file)
    part = "best" if run.settings.get("select") == "best" else "model"
    whole = str(run.settings.get("classifier"))
    for name in ("weight", "bias"):
        places = (f"{part}.{name}", f"{part}.{whole}.{name}")  # of the classifier alone, or of all
        held = next((state[place] for place in places if place in state), np.empty(0))
        if not np.array_equal(held, run.head[name]):
            yield f"{STATE} has another classifier ({name}) than head.npz"


def _network(run: Run) -> Iterator[str]:
    """Hold the stored network against `head.npz` and the freeze certificate."""
    certificate: dict[str, Any] = run.metrics.get("freeze_certificate") or {}
    classifier = run.settings.get("classifier")
    if certificate:
        same = certificate["before"] == certificate["after"]
        if certificate["identical"] != same or (run.setting.freezes and not same):
            yield "the freeze certificate contradicts itself or the regime"
    if not run.keeps_network or not classifier:
        return
    with open_network(run) as tensors:
        model = dict(tensors)
    for name in ("weight", "bias"):
        if not np.array_equal(model.get(f"{classifier}.{name}", np.empty(0)), run.head[name]):
            yield f"{MODEL} has another classifier ({name}) than head.npz"
    trained = certificate.get("without")
    if not trained and str(certificate.get("covers")).endswith("outside the classifier"):
        trained = [classifier]
    if trained and _state_hash(model, tuple(trained)) != certificate["after"]:
        yield f"the freeze certificate is not that of {MODEL}"


def _state_hash(model: Arrays, without: tuple[str, ...]) -> str:
    """Return what `models.regimes.state_hash` returns of the same network."""
    digest = hashlib.sha256()
    skipped = tuple(f"{path}." for path in without)
    for name, array in sorted(model.items()):
        if not name.startswith(skipped):
            digest.update(f"{name} torch.{array.dtype} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
