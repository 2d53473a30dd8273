"""Damaged checkpoints by a fixed seed: npz, safetensors, torch's zip and its older row of pickles.

Run as `python -m tests.support.checkpoints FOLDER COUNT`: it prints what became of them.
"""

import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from headscope.errors import InputError
from headscope.models.checkpoint import read_head
from headscope.models.state import read_state
from tests.support.mutation import mutated

CHECKED = ("npz", "pth")  # formats with a checksum: what is read is what was written


def network(classes=3, width=8):
    """Return a network in miniature, whose final layer is fc."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"conv.weight": (4, 3, 3, 3), "fc.weight": (classes, width), "fc.bias": (classes,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def whole_files(folder: Path) -> dict[str, bytes]:
    """Write one sound checkpoint of each format; return their bytes."""
    state = network()
    numbers = {name.removeprefix("fc."): t.numpy() for name, t in state.items() if "fc" in name}
    np.savez(folder / "whole.npz", **numbers)
    save_file(state, folder / "whole.safetensors")
    content = {"state_dict": state, "epoch": 3, "best": np.float64(0.7)}
    torch.save(content, folder / "whole.pth")
    torch.save(content, folder / "whole.old.pt", _use_new_zipfile_serialization=False)
    paths = [folder / f"whole.{suffix}" for suffix in ("npz", "safetensors", "pth", "old.pt")]
    return {path.name.partition(".")[2]: path.read_bytes() for path in paths}


def try_files(folder: Path, count: int) -> tuple[Counter, list[str], float]:
    """Read so many damaged files; return what became of them, what went wrong, the longest time."""
    whole, rng = whole_files(folder), np.random.default_rng(13)
    expected = {suffix: read_head(folder / f"whole.{suffix}").weight for suffix in whole}
    outcomes, wrong, longest = Counter(), [], 0.0
    for number in range(count):
        suffix = list(whole)[number % len(whole)]
        path = folder / f"{number}.{suffix}"
        path.write_bytes(mutated(whole[suffix], rng))
        start = time.perf_counter()
        for read in (read_head, read_state):
            try:
                result = read(path)
                outcomes[suffix, "read"] += 1
                same = read is read_state or np.array_equal(result.weight, expected[suffix])
                if suffix in CHECKED and not same:
                    wrong.append(f"{path.name}: other numbers, and no word")
            except InputError as error:
                outcomes[suffix, "refused"] += 1
                if path.name not in str(error) or "\n" in str(error) or len(str(error)) > 1000:
                    wrong.append(f"{path.name}: {error}")
            except Exception:  # noqa: BLE001 (whatever it is, it is what the test looks for)
                wrong.append(f"{path.name}: {traceback.format_exc()}")
        longest = max(longest, time.perf_counter() - start)
        path.unlink()
    return outcomes, wrong, longest


if __name__ == "__main__":
    outcomes, wrong, longest = try_files(Path(sys.argv[1]), int(sys.argv[2]))
    print(outcomes, *wrong[:20], f"{len(wrong)} wrong, longest {longest:.2f} s", sep="\n")
