"""Slices a second in fine-tuning: headscope, PyTorch's tutorial, fastai, and the bare step.

    python bench/throughput.py [--data ../shared/data/oasis2] [--models googlenet,resnet50]
                               [--fastai-python PYTHON_THAT_HAS_FASTAI] [--short]

Same model, slices, batch size, optimiser and machine; one process after the other. The textbook
loop is that of PyTorch's transfer-learning tutorial: an ImageFolder of JPEGs, a DataLoader,
torchvision's transforms. fastai (a dependency of this benchmark alone) is `vision_learner`,
unfrozen, on the same JPEGs, with SGD and no augmentation. Each is timed from the start of one step
to the start of the next, after warming up; of several rounds by turns, the fastest counts, so that
a shared machine matters less. The bare step is forward, backward and SGD on one batch that lies in
memory already, taken by turns with the steps of headscope's own loop, in the same process and with
the same memory format and allocator: the least of each give the loop's overhead.

On a GPU the run of headscope is in bfloat16, as it is by default. On a CPU it is timed in bfloat16
too (`precision = "bfloat16"`), beside the comparison: the other two compute in float32.
"""

import argparse
import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

with contextlib.suppress(ImportError):  # a Python that has fastai alone inherits what this sets:
    import headscope  # before torch, how threads wait

import numpy as np
import torch
import torchvision
from PIL import Image
from torch.nn.functional import cross_entropy

SIZE, BATCH, WARM = 224, 32, 2
AIM = 1.8  # on a CPU, the better of both; on a GPU 4 × the textbook loop, for GoogLeNet
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WORKERS = min(4, os.cpu_count() or 1)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class EnoughError(Exception):
    """Raised to leave a loop that is not ours once it has been timed."""


def cpu_seconds():
    """Return the CPU seconds of this process and of its workers so far."""
    seconds = time.process_time()
    for task in Path("/proc/self/task").glob("*/children"):
        for child in task.read_text().split():
            with contextlib.suppress(OSError):  # it has ended
                ticks = Path("/proc", child, "stat").read_text().rpartition(")")[2].split()[11:13]
                seconds += sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return seconds


class Stamps:
    """The time at which each step starts; stops the loop after `steps` and the warm-up."""

    def __init__(self, steps):
        self.times, self.cpu, self.most = [], [], steps + WARM + 1

    def __call__(self):
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())
        self.cpu.append(cpu_seconds())
        if len(self.times) == self.most:
            raise EnoughError("timed")

    def rates(self):
        """Return slices per second, and per CPU second."""
        slices = BATCH * (len(self.times) - 1 - WARM)
        clock, cpu = (times[-1] - times[WARM] for times in (self.times, self.cpu))
        return {"rate": slices / clock, "cpu_rate": slices / cpu}


def plain_model(name, **_):
    options = {"aux_logits": False, "init_weights": False, "transform_input": True}
    model = torchvision.models.get_model(
        name, weights=None, **(options if name == "googlenet" else {})
    )
    model.fc = torch.nn.Linear(model.fc.in_features, 2)
    return model


def textbook(name, folder, steps):
    """Return the rates of train_model of the tutorial, its training phase alone."""
    from torchvision import datasets, transforms

    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    data = datasets.ImageFolder(folder / "jpeg", transform)
    loader = torch.utils.data.DataLoader(data, BATCH, shuffle=True, num_workers=WORKERS)
    model, criterion = plain_model(name).to(DEVICE), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=1e-4)
    model.train()
    stamp, running_loss, running_corrects = Stamps(steps), 0.0, 0
    with contextlib.suppress(EnoughError):
        while True:
            for inputs, labels in loader:
                stamp()
                inputs, labels = inputs.to(DEVICE), labels.to(DEVICE)
                optimizer.zero_grad()
                outputs = model(inputs)
                _, predicted = torch.max(outputs, 1)
                loss = criterion(outputs, labels)
                loss.backward()
                optimizer.step()
                running_loss += loss.item() * inputs.size(0)
                running_corrects += torch.sum(predicted == labels.data)
    return stamp.rates()


def fastai(name, folder, steps):
    """Return the rates of vision_learner, unfrozen, its training phase alone."""
    from fastai.vision.all import SGD, Callback, ImageDataLoaders, Normalize, vision_learner

    stamp = Stamps(steps)

    class Stamp(Callback):
        def before_batch(self):
            if self.training:
                stamp()

    loaders = ImageDataLoaders.from_folder(
        folder / "jpeg",
        valid_pct=0.1,
        bs=BATCH,
        num_workers=WORKERS,
        batch_tfms=[Normalize.from_stats(MEAN, STD)],
    )
    architecture = functools.partial(plain_model, name)
    architecture.__name__ = name
    learner = vision_learner(
        loaders,
        architecture,
        pretrained=False,
        normalize=False,
        n_out=2,
        loss_func=torch.nn.CrossEntropyLoss(),
        opt_func=functools.partial(SGD, mom=0.9),
    )
    learner.unfreeze()
    with contextlib.suppress(EnoughError), learner.no_bar(), learner.no_logging():
        learner.fit(1000, 0.001, cbs=Stamp())
    return stamp.rates()


def headscope(name, folder, steps, precision="auto"):
    """Return the rates of headscope's own loop, its least step and the least bare step."""
    from headscope.console import console, track
    from headscope.models.network import build_network
    from headscope.schedule import epoch_order
    from headscope.training.device import autocast, steady_memory
    from headscope.training.loader import SliceInputs, batches, step_seeds
    from headscope.training.loop import Data, train_epoch
    from headscope.training.recipe import Recipe, make_optimizer
    from headscope.training.resume import Progress, ResumeFile

    console.quiet = True
    network = build_network(name, "finetune", "random", classes=2, size=SIZE, seed=0)
    model, recipe = (
        network.model.to(DEVICE),
        Recipe(epochs=1, learning_rate=0.001, precision=precision),
    )
    pixels = np.load(folder / "pixels.npy")
    inputs = SliceInputs(pixels, MEAN, STD, DEVICE)
    labels = torch.from_numpy(np.load(folder / "labels.npy")).to(DEVICE)
    rows = np.resize(np.arange(len(pixels)), BATCH * (steps + WARM))
    data = Data(inputs, inputs, labels, rows, rows)
    optimizer = make_optimizer(model, network.head, recipe)
    resume = ResumeFile(folder / "last.pt", every_s=float("inf"))  # however long this takes
    network.training_mode()
    x, y = inputs(rows[:BATCH]), labels[:BATCH]

    def own_steps():
        """As in fit: a resume file that is not due, and a progress bar."""
        order, seeds = epoch_order(rows, 0, 0), step_seeds(steps + WARM, 0, 0)
        progress = Progress.start(DEVICE)
        for step in train_epoch(model, data, order, optimizer, recipe, seeds, progress):
            progress.seconds = time.perf_counter()
            assert not resume.due(within_epoch=True)
            yield step

    def bare_step():
        with autocast(recipe.precision, DEVICE):
            loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def seconds_of(step):
        start, cpu = time.perf_counter(), time.process_time()
        step()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start, time.process_time() - cpu

    with steady_memory(DEVICE):
        own = iter(track(own_steps(), "steps", total=len(batches(rows, BATCH))))
        pairs = [
            (seconds_of(lambda: next(own)), seconds_of(bare_step)) for _ in range(steps + WARM)
        ]
    ours, bare = np.array(pairs[WARM:]).transpose(1, 0, 2)  # (steps, 2) each: clock, CPU
    rates = BATCH / ours.mean(axis=0)
    least = {"step_s": ours[:, 0].min(), "bare_step_s": bare[:, 0].min()}
    return {"rate": rates[0], "cpu_rate": rates[1]} | least


def bfloat16(name, folder, steps):
    """Return the same in bfloat16, which a CPU with AMX computes several times faster."""
    return headscope(name, folder, steps, "bfloat16")


def write_data(data, folder):
    """Write the slices as an array and as an ImageFolder of JPEGs, a folder for each class."""
    import oasis2

    slices = oasis2.oasis2_slices(data, folder, SIZE)
    np.save(folder / "pixels.npy", slices.pixels)
    np.save(folder / "labels.npy", slices.labels)
    for row, (pixels, label) in enumerate(zip(slices.pixels, slices.labels, strict=True)):
        path = folder / "jpeg" / slices.class_names[label] / f"{row:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(pixels)).save(path, quality=95)
    return len(slices.pixels)


def measured(python, what, name, folder, steps):
    """Run one measurement in a process of its own; return the figures that it prints."""
    command = [python, "-W", "ignore", __file__, "--one", what, "--models", name]
    command += ["--folder", str(folder), "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{what} {name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def short(place):
    """Return the ratio of GoogLeNet on two steps each, without fastai."""
    from figure import Figure

    write_data(place.scans("oasis2"), place.folder)
    ways = ("headscope", "textbook")
    ours, plain = (measured(sys.executable, way, "googlenet", place.folder, 2) for way in ways)
    overhead = 100 * (ours["step_s"] / ours["bare_step_s"] - 1)
    ratio = ours["rate"] / plain["rate"]
    return [
        Figure("headscope over the textbook loop, GoogLeNet", ratio, "×", 1.15),
        Figure("a step over the bare step", overhead, "%", at_most=15),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--models", default="googlenet,resnet50")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--fastai-python", default=sys.executable)
    parser.add_argument("--one", choices=["textbook", "fastai", "headscope", "bfloat16"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--short", action="store_true", help="one round of two steps")
    given = parser.parse_args()
    if given.short:
        given.steps, given.rounds = 2, 1
    if given.one:
        print(json.dumps(globals()[given.one](given.models, given.folder, given.steps)))
        return
    print(f"batch {BATCH}, {SIZE} × {SIZE}, {DEVICE}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        import oasis2

        print(f"{write_data(given.data or oasis2.DATA, Path(folder))} slices", flush=True)
        for name in given.models.split(","):
            ways = {"textbook": sys.executable, "fastai": given.fastai_python}
            ways |= {"headscope": sys.executable, "bfloat16": sys.executable}
            rounds = [
                {
                    way: measured(python, way, name, folder, given.steps)
                    for way, python in ways.items()
                }
                for _ in range(given.rounds)
            ]
            best = {
                (way, rate): max(figures[way][rate] for figures in rounds)
                for way in ways
                for rate in ("rate", "cpu_rate")
            }
            peer = {
                rate: max(best["textbook", rate], best["fastai", rate])
                for rate in ("rate", "cpu_rate")
            }
            least, bare = (
                min(figures["headscope"][step] for figures in rounds)
                for step in ("step_s", "bare_step_s")
            )
            print(
                f"{name}: headscope {best['headscope', 'rate']:.1f} slices/s, "
                f"textbook {best['textbook', 'rate']:.1f}, fastai {best['fastai', 'rate']:.1f}: "
                f"{best['headscope', 'rate'] / peer['rate']:.2f} × the better of the two "
                f"(aim {AIM}); per CPU second {best['headscope', 'cpu_rate']:.1f}, "
                f"{best['textbook', 'cpu_rate']:.1f}, {best['fastai', 'cpu_rate']:.1f}: "
                f"{best['headscope', 'cpu_rate'] / peer['cpu_rate']:.2f} ×; a step {least:.3f} s, "
                f"the bare step {bare:.3f} s: overhead {100 * (least / bare - 1):.1f}%; "
                f"in bfloat16 {best['bfloat16', 'rate']:.1f} slices/s, "
                f"{best['bfloat16', 'rate'] / best['headscope', 'rate']:.2f} × its own float32",
                flush=True,
            )


if __name__ == "__main__":
    main()
