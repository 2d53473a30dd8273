"""Networks beside what is no network, on real scans: tables of docs/trust.md.

    python bench/explanations.py --weights resnet50_v1.safetensors --out FOLDER

Frozen ResNet-50 and EfficientNet-Lite0, heads on slices and on scans, five seeds, subjects apart,
on OASIS-2 (three planes, which together are the scan of a session) and on nichart_t1 (age above 80,
sex); beside them the rivals, the confounder tests and the ladder. The same command
goes on where it was stopped, and writes bench/results/explanations.md.
"""

import argparse
import time
from math import nan
from pathlib import Path

import headscope as hs
from headscope.analysis.explanations.ladder import WHOLE, read_ladder
from headscope.analysis.results.settings import rival_words, setting_results
from headscope.tables import Cell, Column, Table

NETWORKS = ("resnet50_v1", "tf_efficientnet_lite0")
RESULTS = Path(__file__).parent / "results" / "explanations.md"
SCORES = ("accuracy", "balanced_accuracy", "auc")
INTRODUCTION = """# Networks beside what is no network, on real scans

`python bench/explanations.py --weights resnet50_v1_imagenet_fp16.safetensors --out …`

Frozen networks, size 224, batches of 32, 30 epochs at a rate of 0.01 (×0.9 every 10 epochs), split
5:2:3 by subject, seeds 0 to 4. Scores are of test subjects, averaged over seeds, with 95% intervals
over subjects and seeds. `-scan`: the head trains on the mean of a scan's features.
"""


def cohorts(data):
    """Name each cohort, with the settings that find it."""
    nichart = data / "nichart_t1"
    return {
        "OASIS-2, three planes": {"data": data / "oasis2", "plane": "all"},
        "nichart_t1, age above 80": {"data": nichart, "label": "Age", "threshold": 80},
        "nichart_t1, sex": {"data": nichart, "label": "Sex"},
    }


def folder_of(name, given):
    return given.out / name.replace(", ", "-").replace(" ", "-")


def train(name, settings, given):
    """Train what is not trained yet, whole slices first."""
    folder = folder_of(name, given)
    weights = dict(zip(NETWORKS, (str(given.weights), "pretrained"), strict=True))
    rows = [
        {"regime": "frozen", "architecture": network, "weights": weights[network], "unit": unit}
        for network in NETWORKS
        for unit in ("slice", "scan")
    ]
    hs.run(hs.Config(**settings, rows=rows, seeds=range(5), learning_rate=0.01, epochs=30,
                     keep_model=False, cache=given.cache, out=folder))  # fmt: skip


def bounded(score, scale=1):
    low, high = getattr(score, "interval", (score.low, score.high)) or (nan, nan)
    return Cell(scale * score.value, scale * low, scale * high)


def scores(name, folder):
    """One row per network and rival: its scores, and how far it is above covariates and pixels."""
    runs = hs.read_experiment(folder, rivals=True)
    gaps = {(row.first, row.second): row for row in hs.compare_runs(runs).rivals}
    for result in setting_results(runs):
        words = rival_words(result) if result.is_rival else f"{result.architecture}, {result.name}"
        pair = f"{result.architecture} {result.name}"
        found = [gaps.get((pair, rival)) for rival in ("covariates", "pixels")]
        less = [bounded(row.subject_accuracy, 100) if row else "" for row in found]
        yield [name, words, *(bounded(result.scores[f"subject_{n}"]) for n in SCORES), *less]


def differences(name, folder):
    """One row per network and rival: what lies between them, subject by subject."""
    for row in hs.compare_runs(hs.read_experiment(folder, rivals=True)).rivals:
        accuracy, auc = row.subject_accuracy, row.subject_auc
        numbers = bounded(accuracy, 100), accuracy.p_holm, bounded(auc), auc.p_holm
        yield [name, row.first, row.second, *numbers]


def confounders(name, folder):
    for made in hs.analyse_confounders(folder):
        for item in made.confounders:
            p = item.label_p, item.partial_p, item.full.p
            title = made.title.removesuffix(", subject split")
            yield [name, title, item.covariate, *p, bounded(item.auc), bounded(item.adjusted)]


def rungs(name, folder):
    for setting in getattr(read_ladder(folder), "settings", ()):
        for rung in setting.rungs:
            less = "" if rung.name == WHOLE else bounded(rung.difference, 100)
            yield [
                name,
                setting.network,
                rung.title,
                bounded(rung.accuracy),
                less,
                bounded(rung.auc),
            ]


def signed(name):
    return Column(name, "points", "signed", True)


ACCURACY = Column("Accuracy", "%", "percent", True)
BALANCED = Column("Balanced accuracy", "%", "percent", True)
AUC = Column("AUC", "", "fraction", True)
P = "probability"
TABLES = {
    "Networks and rivals": (
        scores,
        ("Cohort", "", ACCURACY, BALANCED, AUC, signed("Less covariates"), signed("Less pixels")),
    ),
    "Confounder tests": (
        confounders,
        ("Cohort", "Network", "Covariate", Column("Alike in the classes", "p", P),
         Column("Read, given the class", "p", P), Column("Class told, given it", "p", P), AUC,
         Column("Adjusted AUC", "", "fraction", True)),
    ),
    "The ladder": (
        rungs,
        ("Cohort", "Network", "Slices", ACCURACY, signed("Minus whole slices"), AUC),
    ),
    "Networks less rivals": (
        differences,
        ("Cohort", "Network", "Rival", signed("Accuracy"), Column("p, Holm", "", P), AUC,
         Column("p, Holm", "", P)),
    ),
}  # fmt: skip


def write(folders, seconds):
    """Write the tables of the experiments that are there, and what the ladders say."""
    parts = [INTRODUCTION]
    for title, (rows_of, columns) in TABLES.items():
        rows = [row for name, folder in folders.items() for row in rows_of(name, folder)]
        parts.append(f"## {title}\n\n{Table(title, columns, rows).to_markdown()}\n")
    parts.append("## What the ladders say\n")
    for folder in folders.values():
        ladder = read_ladder(folder)
        said = () if ladder is None else (*ladder.sentences, *ladder.notes)
        parts += [f"* {sentence}\n" for sentence in said]
    print(f"{seconds:.0f} s")
    RESULTS.write_text("\n".join(parts), encoding="utf-8")
    print(RESULTS.read_text(encoding="utf-8"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", type=Path, required=True, help="of ResNet-50")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="features of earlier experiments")
    parser.add_argument("--only", default="", help="cohorts whose name holds this")
    parser.add_argument("--ladder", default=",".join(NETWORKS), help="of which networks, by comma")
    given = parser.parse_args()
    begin, chosen = time.perf_counter(), cohorts(given.data)
    for name, settings in chosen.items():
        if given.only in name:
            train(name, settings, given)
            if given.ladder:
                hs.ablate(folder_of(name, given), architectures=given.ladder.split(","))
    there = {name: folder_of(name, given) for name in chosen}
    write({name: f for name, f in there.items() if (f / "runs").is_dir()},
          time.perf_counter() - begin)  # fmt: skip


if __name__ == "__main__":
    main()
