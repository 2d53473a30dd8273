"""Named tensors of a file of weights from anywhere, read with nothing in the file executed.

Files: `.safetensors`; torch's `.pth`, `.pt`, `.ckpt`, `.bin` (plain, Lightning's, timm's).
"""

import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from headscope.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

# what training wraps around a network: in the names of its tensors, and in levels of the file,
# where averaged weights (EMA) come first
WRAPPERS = ("module.", "model.", "net.", "network.", "backbone.", "_orig_mod.")
CONTAINERS = (
    *("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net"),
    "weights",
)
DEPTH = 4  # so many containers or wrappers may hold one another
# what a damaged file, or one of another kind, makes the readers raise
DAMAGE = (
    SafetensorError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    OverflowError,
)
NUMPY_TYPES = {"F16", "F32", "F64", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "BOOL"}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file: its shape, and the function that reads it as an array."""

    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]


def read_tensors(path: Path) -> dict[str, StoredTensor]:
    """Return the named tensors of a file of weights, each of which is read when it is asked for.

    Training checkpoints are searched for the weights in them. Types that numpy lacks, such as
    bfloat16, are read as float32.

    Raises
    ------
    InputError
        The file is damaged or of another kind, holds no state dict, or reading it would run code.
    """
    tensors = _from_safetensors(path) if path.suffix == ".safetensors" else _from_torch(path)
    if not tensors:
        raise InputError(f"{path} holds no state dict (a table of named tensors).")
    return tensors


def strip_wrappers(name: str) -> str:
    """Return the name of a tensor without what training wraps around a network."""
    for wrapper in WRAPPERS:
        if name.startswith(wrapper):
            return strip_wrappers(name.removeprefix(wrapper))
    return name


def unwrap(tensors: Mapping[str, Any], expected: Iterable[str]) -> dict[str, Any]:
    """Remove wrappers from the names until some of them are expected.

    What a file holds outside the wrapper, such as a loss's own tensors, is left out.
    """
    names = set(expected)
    for _ in range(DEPTH):
        if not names.isdisjoint(tensors):
            break
        wrapper = next((w for w in WRAPPERS if any(n.startswith(w) for n in tensors)), None)
        if wrapper is None:
            break
        inner = ((n, tensor) for n, tensor in tensors.items() if n.startswith(wrapper))
        tensors = {name.removeprefix(wrapper): tensor for name, tensor in inner}
    return dict(tensors)


def _from_safetensors(path: Path) -> dict[str, StoredTensor]:
    try:
        with safe_open(path, framework="numpy") as file:  # checks the header and the length
            stored = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {
                name: StoredTensor(
                    tuple(part.get_shape()), partial(_read_stored, path, name, part.get_dtype())
                )
                for name, part in stored.items()
            }
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} cannot be read as weights: it is no readable safetensors file ({error})."
        ) from None


def _read_stored(path: Path, name: str, dtype: str) -> NDArray[Any]:
    in_numpy = dtype in NUMPY_TYPES  # torch is imported for other types alone
    with safe_open(path, framework="numpy" if in_numpy else "pt") as file:
        tensor = file.get_tensor(name)
    return tensor if in_numpy else _to_array(tensor)


def _from_torch(path: Path) -> dict[str, StoredTensor]:
    from torch import Tensor

    content = _read_pickle(path)
    for _ in range(DEPTH):
        levels = (content.get(key) for key in CONTAINERS) if isinstance(content, Mapping) else ()
        content = next((level for level in levels if isinstance(level, Mapping) and level), content)
    named = content.items() if isinstance(content, Mapping) else ()
    return {
        str(name): StoredTensor(tuple(tensor.shape), partial(_to_array, tensor))
        for name, tensor in named
        if isinstance(tensor, Tensor)
    }


def _read_pickle(path: Path) -> Any:
    """Read tensors and plain containers; large tensors stay on disk where the format allows it."""
    import torch

    try:
        mapped = zipfile.is_zipfile(path)  # files of torch before 1.6 cannot be mapped
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says of old or scripted files
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (OSError, *DAMAGE) as error:
        reason = "it is another kind of file, or damaged"
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            reason = (
                "it holds Python objects beside tensors (a whole model, perhaps), and reading "
                "them would run code. Save model.state_dict() instead"
            )
    raise InputError(
        f"{path} cannot be read as weights: headscope takes .safetensors, or a torch file of "
        f"tensors; {reason}."
    )


def _to_array(tensor: "Tensor") -> NDArray[Any]:
    in_numpy = tensor.dtype.itemsize > 2 or not tensor.is_floating_point()
    return (tensor.detach() if in_numpy else tensor.detach().float()).numpy()
