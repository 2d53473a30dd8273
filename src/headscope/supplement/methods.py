"""The methods of an experiment in words: each number is one of the record's."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from headscope.analysis.results.settings import rival_words
from headscope.files import NO_ID
from headscope.metrics import DRAWS
from headscope.metrics.intervals import LEVEL
from headscope.record import Run
from headscope.supplement.prose import Facts, Prose, listed
from headscope.supplement.recipes import OPTIMIZERS, aggregates, loss_words, missing_words, varied
from headscope.supplement.study import Study

NETWORKS: Final = {  # how names of architectures begin, and who described them
    "resnet": "he2016",
    "googlenet": "szegedy2015",
    "vgg": "simonyan2015",
    "alexnet": "krizhevsky2012",
    "efficientnet": "tan2019",
    "tf_efficientnet": "tan2019",
}
COHORTS: Final = {"OASIS-1": "marcus2007", "OASIS-2": "marcus2010"}
REGIMES: Final = {  # start stands for the weights that training started from
    "frozen": "the classifier alone was trained, on a network of {start} that stayed as it was",
    "frozen-adabn": "the classifier alone was trained, on a network of {start}, after its "
    "statistics of batch normalisation were estimated once on the training slices [@li2016]",
    "finetune": "all parameters were trained from {start}, under a new classifier",
    "scratch": "all parameters were trained from random weights",
    "scratch-meanvar": "all parameters were trained from random weights with the mean and variance "
    "of each layer of {start} [@raghu2019]",
    "lp-ft": "the classifier was trained first and then all parameters, from {start} [@kumar2022]",
    "layerwise": "the last stages alone were trained, from {start} [@tajbakhsh2016]",
}
SPLITS: Final = {
    "subject": "by subject, so that all slices of a subject are in one subset",
    "slice": "by slice, so that slices of one subject may be in several subsets",
    "given": "as the data give their subsets",
    "site": "by site, each of which was tested once by networks that never saw it",
}
TESTS: Final = {
    "mcnemar": "McNemar's test [@mcnemar1947]",
    "delong": "the test of DeLong et al. [@delong1988]",
    "bootstrap": "the bootstrap over subjects",
}
CODE: Final = "headscope"  # the file of facts that the program itself fixes


def methods(study: Study, facts: Facts) -> Prose:
    """Write the methods; facts collects what they show of the record."""
    paragraphs = [(title, make(study, facts)) for title, make in PARAGRAPHS.items()]
    return Prose([(title, text) for title, text in paragraphs if text])


def run_file(run: Run, name: str) -> str:
    """Return where a file of a run is, within the experiment."""
    return f"runs/{run.name}/{name}"


def _data(study: Study, facts: Facts) -> str:
    run, table = study.main, study.main.predictions
    predictions = run_file(run, "predictions.tsv")
    named = table[table["subject_id"] != NO_ID]
    sentences = []
    if study.simulated:
        sentences.append(
            "The cohort is simulated: its scans were made by a computer, and no number here speaks "
            "of subjects or disease."
        )
    layout = study.slices.get("layout")
    cite = f" [@{COHORTS[layout]}]" if layout in COHORTS else ""
    of = f" of {facts(layout, 'slices/slices.json', 'layout')}{cite}" if cite else ""
    slices = facts(len(table), predictions, "rows")
    if len(named) < len(table):
        sentences.append(
            f"The data{of} were {slices} slices. The pictures name no subjects, so that it is "
            "unknown which slices show the same subject."
        )
        return " ".join([*sentences, _classes(table, "slices", predictions, facts)])
    subjects = facts(named["subject_id"].nunique(), predictions, "distinct subject_id")
    held = f"{slices} slices of {subjects} subjects"
    if not run.setting.subjects:  # visits of inferred subjects are not known
        visits = named.drop_duplicates(["subject_id", "session_id"])
        key = "distinct subject_id and session_id"
        held += f" in {facts(len(visits), predictions, key)} sessions"
    sentences += [
        f"The data{of} were {held}.",
        _classes(table, "subjects", predictions, facts),
    ]
    if run.setting.subjects:
        shown = facts(run.setting.subjects, run_file(run, "run.toml"), "subjects")
        sentences.append(f"Subjects are not known: they were inferred from pixels ({shown}).")
    if failed := len(study.problems):
        count = facts(failed, "slices/problems.tsv", "rows")
        sentences.append(f"{count} scan{'' if failed == 1 else 's'} could not be used.")
    if run.settings.get("pseudonymised"):
        sentences.append("Subjects and sessions bear pseudonyms, keyed hashes of their ids.")
    return " ".join(sentences)


def _classes(table: Any, unit: str, file: str, facts: Facts) -> str:
    parts = []
    for name in dict.fromkeys(table["label"]):
        rows = table[table["label"] == name]
        count = len(rows) if unit == "slices" else rows["subject_id"].nunique()
        key = f"rows of label {name}" if unit == "slices" else f"distinct subject_id of {name}"
        parts.append(f"{facts(name, file, 'label')} ({facts(count, file, key)} {unit})")
    text = f"The classes were {listed(sorted(parts))}."
    twice = table.drop_duplicates(["subject_id", "label"])["subject_id"].duplicated().sum()
    if unit == "subjects" and twice:
        number = facts(int(twice), file, "subject_id of several labels")
        text += f" Subjects whose label changed between sessions count under each: {number}."
    return text


def _slices(study: Study, facts: Facts) -> str:
    run = study.main
    file, slicing = run_file(run, "run.toml"), run.settings.get("slicing") or {}
    if "slice_size" not in run.settings:
        return ""
    width, height = (facts(run.settings["slice_size"], file, "slice_size") for _ in range(2))
    pixels = f"{width} × {height} pixels"
    if slicing.get("of") == "pictures":
        return f"Ready slices were resized to {pixels}."
    planes = facts.listed(run.settings.get("planes", []), file, "planes")
    if not slicing:
        return f"Slices were {planes}, of {pixels}."
    count = facts(slicing["count"], file, "slicing.count") if "count" in slicing else "some"
    one = slicing.get("count") == 1
    slices = f"slice{'' if one else 's'}{' per plane' if ' and ' in planes else ''}"
    text = f"From each volume {count} {planes} {slices} "
    spacing = "" if one else ", consecutive"
    if slicing.get("spacing_mm"):
        spacing = f", {facts(slicing['spacing_mm'], file, 'slicing.spacing_mm', 'g')} mm apart"
    text += f"{'was' if one else 'were'} taken{spacing}"
    centre = str(slicing.get("centre", ""))
    if centre.startswith("vertex:"):
        depth = facts(centre.removeprefix("vertex:").removesuffix("mm"), file, "slicing.centre")
        text += f", centred {depth} mm below the vertex"
    elif centre:
        text += f", centred on the middle of the {centre.replace('volume', 'grid')}"
    text += f", and drawn to {pixels}"
    return f"{text}{_brightness(study, facts)}."


def _brightness(study: Study, facts: Facts) -> str:
    """Say which values of a volume are black and white."""
    slices = study.slices
    if slices.get("window") and "percentiles" in slices:
        key, words = "window", "; brightness runs from {} to {} in the units of the scan"
    else:  # stores of earlier versions hold the percentiles as window
        key = "percentiles" if "percentiles" in slices else "window"
        words = "; brightness runs from percentile {} to percentile {} of the head"
    if not slices.get(key):
        return ""
    ends = (facts(end, "slices/slices.json", f"{key}.{k}", "g")
            for k, end in enumerate(slices[key]))  # fmt: skip
    return words.format(*ends)


def _splits(study: Study, facts: Facts) -> str:
    ways = list(dict.fromkeys(run.setting.split for run in study.runs))
    sentences = []
    for way in ways:
        runs = [run for run in study.runs if run.setting.split == way]
        folds, seeds = runs[0].setting.folds, sorted({run.setting.seed for run in runs})
        file = run_file(runs[0], "run.toml")
        text = f"Data were split {SPLITS.get(way, f'by {way}')}"
        if folds:
            text += f", into {facts(folds, file, 'folds')} folds, each tested once"
        seed_text = facts.listed(seeds, "runs/*/run.toml", "seed")
        sentences.append(f"{text} (seed{'s' if len(seeds) > 1 else ''} {seed_text}).")
        sentences.append(_subsets(runs[0], facts, several=len(seeds) > 1))
    if study.settings.get("split_file"):
        sentences.append("The split was given in a file.")
    if balance := study.settings.get("balance"):
        columns = facts.listed(balance, "experiment.toml", "balance")
        sentences.append(f"Subsets were balanced in {columns}.")
    if "slice" in ways:
        sentences.append(
            "Splits by slice inflate accuracies [@yagis2021]: they are for comparison."
        )
    return " ".join(sentences)


def _subsets(run: Run, facts: Facts, several: bool) -> str:
    """Count what each subset of a split holds, of `several` seeds that of the first."""
    parts, file = [], run_file(run, "predictions.tsv")
    for subset, title in {"train": "training", "val": "validation", "test": "test"}.items():
        rows = run.predicted(subset)
        held = f"{facts(len(rows), file, f'rows of {subset}')} slices"
        if run.named:
            count = rows["subject_id"].nunique()
            subjects = facts(count, file, f"distinct subject_id of {subset}")
            held = f"{subjects} subjects ({held})"
        parts.append(f"{held} were in {title}")
    seed = f"seed {facts(run.setting.seed, run_file(run, 'run.toml'), 'seed')}" if several else ""
    where = f"With {seed}, " if seed else ""
    if run.setting.fold is not None:
        where = f"In the first fold{seed and f' of {seed}'}, "
    return f"{where}{listed(parts)}."


def _networks(study: Study, facts: Facts) -> str:
    shown = []
    for name in dict.fromkeys(run.setting.architecture for run in study.runs):
        key = name.rpartition("/")[2].lower()
        cite = next((f" [@{ref}]" for start, ref in NETWORKS.items() if key.startswith(start)), "")
        shown.append(facts(name, "runs/*/run.toml", "architecture") + cite)
    text = f"The network{'s were' if len(shown) > 1 else ' was'} {listed(shown)}."
    loaded = [
        run.settings
        for run in study.runs
        if run.settings.get("weights_setting", "random") != "random" and "weights" in run.settings
    ]
    if loaded:
        said = " ".join(f"{settings.get('note')} {settings['weights']}" for settings in loaded)
        cite = " [@russakovsky2015]" if "imagenet" in said.lower() else ""
        sources = dict.fromkeys(settings["weights"] for settings in loaded)
        files = facts.listed(sources, "runs/*/run.toml", "weights")
        text += f" Weights came from {files}{cite}."
    regimes: dict[str, set[str]] = {}
    for run in study.runs:
        regimes.setdefault(run.setting.regime, set()).add(run.setting.variant)
    parts = []
    for regime, variants in regimes.items():
        family = regime.partition(":")[0]
        label = facts.listed(sorted(variants), "runs/*/run.toml", "variant", last="or")
        words = REGIMES.get(family, "the regime decides what trains from {start}")
        parts.append(f"{label}, where {words.format(start=_start(study, regime))}")
    return f"{text} Regimes were {'; '.join(parts)}."


def _start(study: Study, regime: str) -> str:
    runs = [run for run in study.runs if run.setting.regime == regime]
    asked = {run.settings.get("weights_setting") for run in runs}
    if asked == {"random"}:
        return "random weights"
    return "the weights at its start" if asked & {"random", None} else "pretrained weights"


def _training(study: Study, facts: Facts) -> str:
    optimizers = study.values("optimizer")
    moment = "β₁ {}" if optimizers == ["adamw"] else "momentum {}"
    parts = [
        varied(study, facts, "momentum", moment),
        varied(study, facts, "weight_decay", "weight decay {}"),
        varied(study, facts, "batch_size", "batches of {} slices"),
    ]
    by = listed([OPTIMIZERS.get(name, str(name)) for name in optimizers] or ["SGD"], "or")
    text = f"Networks were trained by {by} on the cross-entropy of slices"
    text += f" ({'; '.join(filter(None, parts))})" if any(parts) else ""
    text += varied(study, facts, "epochs", ", for {} epochs")
    text += varied(study, facts, "learning_rate", ", at an initial learning rate of {}") + "."
    schedules = study.values("schedule")
    if schedules == ["step"]:
        text += varied(study, facts, "drop_factor", " The rate was multiplied by {}")
        text += varied(study, facts, "drop_every", " after every {} epochs.")
    elif schedules == ["cosine"]:
        text += " The rate fell along half a cosine [@loshchilov2017]."
    factors = [value for value in study.values("head_learning_rate") if value != 1]
    if factors:
        shown = facts.listed(factors, "runs/*/run.toml", "head_learning_rate", "g")
        text += f" The classifier trained at {shown} times that rate."
    if study.values("head_init") == ["glorot"]:
        text += " The classifier started from Glorot-uniform weights [@glorot2010]."
    text += loss_words(study, facts)
    return text + _augmentation(study, facts) + kept_weights(study) + _beside(study, facts)


def _beside(study: Study, facts: Facts) -> str:
    """Say which heads trained on scans, and what stood beside the networks."""
    text = ""
    if scans := {run.setting.variant for run in study.runs if run.setting.unit == "scan"}:
        names = facts.listed(sorted(scans), "runs/*/run.toml", "variant")
        text = f" In {names} the classifier trained on the mean of each scan's features."
    rivals = {result.architecture: rival_words(result) for result in study.rivals}
    if not rivals:
        return text
    named = [f"{'logistic regression on ' * (name != 'majority')}{words}"
             for name, words in rivals.items()]  # fmt: skip
    text += f" Beside the networks stood, on the same splits, {listed(named)}."
    if [*rivals] == ["majority"]:
        return text
    row = "scan" if NO_ID not in set(study.main.predictions["subject_id"]) else "picture"
    return (
        f"{text} Regressions have one row per {row} and an L2 penalty, chosen on validation {row}s."
        f"{missing_words(study)}"
    )


def _augmentation(study: Study, facts: Facts) -> str:
    used = {
        key: [value for value in study.values(key) if value]
        for key in ("augment_flip", "augment_rotate_deg", "augment_jitter")
    }
    if not any(key in run.settings for run in study.runs for key in used):
        return ""
    parts = ["flipped left to right"] if used["augment_flip"] else []
    for key, words in (
        ("augment_rotate_deg", "turned by up to {} degrees"),
        ("augment_jitter", "changed in brightness by a share of up to {}"),
    ):
        if used[key]:
            shown = facts.listed(used[key], "runs/*/run.toml", key, "g", "or")
            parts.append(words.format(shown))
    if not parts:
        return " Slices were not augmented."
    return f" Where the backbone trains, slices were {listed(parts)} at random."


def kept_weights(study: Study) -> str:
    """Say which epoch's weights were kept."""
    words = {"final": "those of the last epoch", "best": "those of the lowest validation loss"}
    chosen = [words[choice] for choice in study.values("select")]
    by_row = ", by row" if len(chosen) > 1 else ""
    return f" The weights kept were {listed(chosen, 'or')}{by_row}." if chosen else ""


def _evaluation(study: Study, facts: Facts) -> str:
    level = facts(round(100 * LEVEL), CODE, "metrics.intervals.LEVEL")
    draws = facts(DRAWS, CODE, "metrics.DRAWS")
    if not study.named:
        return (
            "Accuracies are of slices. As the pictures name no subjects, neither accuracies over "
            "subjects nor intervals are given."
        )
    text = (
        f"A subject's prediction was {aggregates(study)}. Accuracy, sensitivity, specificity and "
        "the area under the ROC curve are given over slices and over subjects; slices and subjects "
        f"are ranked by log-odds. Intervals at {level}% resample test subjects within class "
        f"({draws} draws) [@efron1987; @hesterberg2015]; shares of subjects that were tested once "
        "each have Wilson's interval where the bootstrap has none [@wilson1927]."
    )
    if len(study.main.class_names) > 2:
        text += " Of several classes, the area is the mean of each class against the rest."
    if any(len(result.seeds) > 1 for result in study.results):
        text += (
            " Repeats over seeds are averaged, and the interval holds their variance, corrected "
            "for the subjects that they share [@nadeau2003]."
        )
    accuracies, areas = (listed([TESTS[name] for name in used], "or") for used in study.tests)
    if accuracies:
        both = study.rivals and study.results[1:]
        apart = ", those with what is no network apart" if both else ""
        by = f"accuracies by {accuracies}, areas by {areas}"
        if accuracies == areas:
            by = f"accuracies and areas by {areas}"
        text += (
            f" Settings were compared on the same subjects: {by}, with Holm's correction for all "
            f"pairs of a split{apart} [@holm1979]."
        )
    text += (
        " Beside each accuracy stands what predicting the larger class of the test alone gives. "
        "Temperatures and thresholds were fitted on validation slices and subjects [@guo2017]. "
        "Final layers and logits were analysed after Khagi and Kwon [@khagi2022], beside a null "
        "model of what training alone does to them."
    )
    return text


def _software(study: Study, facts: Facts) -> str:
    environment: Mapping[str, Any] = study.environment
    packages, file = environment.get("packages") or {}, "environment.json"
    if not packages:
        return ""
    cites = {
        "torch": ("PyTorch", " [@paszke2019]"),
        "timm": ("timm", " [@wightman2019]"),
        "scikit-learn": ("scikit-learn", " [@pedregosa2011]"),
    }
    parts = []
    for name, version in packages.items():
        title, cite = cites.get(name, (name, ""))
        parts.append(f"{title} {facts(version, file, f'packages.{name}')}{cite}")
    text = f"The software was {listed(parts)}"
    if "python" in environment:
        text += f", under Python {facts(environment['python'], file, 'python')}"
    if "device" in environment:
        text += f", on {facts(environment['device'], file, 'device')}"
    return f"{text}."


PARAGRAPHS: Final[dict[str, Callable[[Study, Facts], str]]] = {
    "Data": _data,
    "Slices": _slices,
    "Splits": _splits,
    "Networks": _networks,
    "Training": _training,
    "Evaluation": _evaluation,
    "Software": _software,
}
