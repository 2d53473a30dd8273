"""The run directory: written by training, read by everything after it, and by nothing else.

Each file opens with numpy, pandas or a TOML or JSON reader alone:

    run.toml            every setting that made the run
    history.jsonl       one row per epoch: losses, slice accuracies, learning rate, seconds
    predictions.tsv     one row per slice: subset, scan, ids, labels, probabilities, logits
    head.npz            weight (K, D), bias (K,), initial_weight, initial_bias, class_names
    features.npy        features (N, D), to be memory-mapped
    features.npz        logits (N, K), label, subject_id, subset, slice
    layers.npz          mean activation (n, C) of each stage, and the rows ("slice") they come from
    maps.npz            last feature maps (n, C, h, w) of test slices, and their rows ("slice")
    model.safetensors   every parameter and buffer of the trained network
    backbone.safetensors  in its place in a frozen run: all but the classifier, which head.npz has
    state.safetensors   weights and optimiser after the last epoch, from which a run continues
    manifest.json       the SHA-256 of every file, by which a record knows whether it is whole
    metrics.json        scores with intervals, training seconds, freeze certificate

Frozen runs of one backbone have the same features.npy, layers.npz, maps.npz and
backbone.safetensors: these are in the store of the experiment (`headscope.manifest`), each once.

`metrics.json` is written last: a directory without it is a run that has not ended.
"""

from headscope.record.experiment import (
    Records,
    find_runs,
    read_experiment,
    read_failures,
    write_failures,
)
from headscope.record.export import export_run
from headscope.record.longer import begin_longer, finish_longer, replace_run, wants_more
from headscope.record.network import open_network
from headscope.record.run import BACKBONE, FEATURES, MODEL, STATE, SUBSETS, Arrays, Run
from headscope.record.setting import RIVAL, RIVALS, Setting
from headscope.record.store import clear_store, unused
from headscope.record.whole import (
    finished_run,
    manifest_problems,
    run_problem,
    structure_problem,
)
from headscope.record.write import (
    check_run,
    discard_run,
    seal_run,
    start_run,
    tidy_run,
    write_history,
    write_run,
)

__all__ = [
    "BACKBONE", "FEATURES", "MODEL", "RIVAL", "RIVALS", "STATE", "SUBSETS", "Arrays", "Records",
    "Run", "Setting", "begin_longer", "check_run", "clear_store", "discard_run", "export_run",
    "find_runs", "finish_longer", "finished_run", "manifest_problems", "open_network",
    "read_experiment", "read_failures", "replace_run", "run_problem", "seal_run", "start_run",
    "structure_problem", "tidy_run", "unused", "wants_more", "write_failures", "write_history",
    "write_run",
]  # fmt: skip
