"""What did the head learn, and should you believe its accuracy?

import headscope as hs

hs.run(hs.Config(data="scans", out="first"))        the whole path, from scans to records
hs.list_runs(hs.Config(data="scans"))               the names of a grid's runs, to train some alone
hs.predict("first/runs/NAME", "new.nii.gz")         what a run says of a new scan
hs.evaluate("first", "elsewhere")                   its networks on a labelled cohort from elsewhere
hs.open("first")                                    an experiment that shows itself
hs.track("first", to="mlflow")                      its runs in MLflow or TensorBoard
hs.report("first")                                  table, figures and HTML page
hs.write_figures("first")                           figures, tables and methods for a paper
hs.simulate("cohort")                               a simulated cohort with known atrophy
hs.audit("scans")                                   duplicates, leaks and shortcuts
hs.inspect("scans")                                 subjects, sessions, classes, problems
hs.slice("scans", "slices")                         labelled mid-slices, as a store or pictures
hs.list_models("timm/convnext*")                    architectures, weights on this machine
hs.figures.plot_weights(analysis.pairs[0])          every figure of the report, and more
hs.head_analysis(weight, bias, initial)             the final layer, explained
hs.read_head("network.pth")                         the final layer of anyone's network
hs.feature_analysis(features, logits, labels, subjects)   what it reads: classes, subjects
hs.analyse_leakage(hs.read_experiment("first"))     leak gap, permuted labels, re-identification
hs.ablate("first")                                  with how little of the brain it works
hs.verify("first")                                  whether a record is what was written
hs.export("first/runs/NAME", "alone")               a run as a record that stands alone
hs.score("predictions.csv")                         anyone's predictions, by subject
hs.compare_runs(hs.read_experiment("first"))        which settings differ, on the same subjects

Every path may be text or a `pathlib.Path`. `__init__.pyi` lists the names and their modules; each
module is imported when one of its names is first used, since torch alone takes seconds.
"""

import os
import sys

# OpenMP's threads spin while they wait, which costs more than it saves beside other work: they look
# a moment (some 10 µs) and sleep; torch reads both when it is first imported
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

if sys.argv[:1] == ["-m"] or (sys.argv[:1] and sys.argv[0].endswith("/headscope")):
    # this is the command: it answers Ctrl-C from here on, while it imports the rest
    from headscope.signals import end_at_signals

    end_at_signals()

from typing import Any

import lazy_loader

__version__ = "0.3.0"

# Functions whose public name is shorter than the one they have in their module.
_SHORT = {
    "export_run": "export",
    "fetch_oasis_vbm": "fetch",
    "inspect_data": "inspect",
    "open_experiment": "open",
    "simulate_cohort": "simulate",
    "slice_data": "slice",
    "write_report": "report",
    "write_side_by_side": "side_by_side",
}
_LONG = {short: long for long, short in _SHORT.items()}
RENAMED = {  # public name of 0.1 → what it is now
    "carriers": "logit_contributions",
    "leakage_analysis": "analyse_leakage",
    "run_calibration": "analyse_calibration",
    "run_feature_analysis": "analyse_features",
    "run_head_analysis": "analyse_head",
}

_load, _, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = sorted(_SHORT.get(name, name) for name in _names)


def __getattr__(name: str) -> Any:
    """Import the module of a public name when the name is first used."""
    if name in RENAMED:
        raise AttributeError(f"headscope.{name} is now headscope.{RENAMED[name]}.")
    if name not in __all__:
        raise AttributeError(f"module 'headscope' has no attribute {name!r}")
    value = globals()[name] = _load(_LONG.get(name, name))
    return value


def __dir__() -> list[str]:
    """List the public names, which tab completion shows."""
    return [*__all__, "__version__"]
