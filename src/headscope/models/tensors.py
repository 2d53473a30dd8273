"""Named tensors of a file of weights from anywhere, read with nothing in the file executed.

Files: safetensors and torch's (plain, Lightning's, timm's …), known by their content, whatever
their suffix. Of several networks in a file one is taken, by the same rule for every command.
"""

import os
import pickle
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from headscope import manifest
from headscope.errors import InputError
from headscope.models.torchfile import ForeignClassError, TorchFile, TorchTensor, read_torch

# the words of names that training puts around a network: module, _orig_mod, model_ema, encoder_q …
WRAPPING = {
    *("module", "model", "net", "network", "backbone", "encoder", "trunk", "base", "orig", "mod"),
    *("state", "dict", "weights", "params", "online", "student", "raw", "q", "k", ""),
}
AVERAGED = {"ema", "swa", "avg", "average", "averaged", "teacher", "target", "shadow"}
DEPTH = 5  # so many containers or wrappers may hold one another
MOST_LISTED = 6
# what a damaged file, or one of another kind, makes the readers raise
DAMAGE = (
    *(SafetensorError, pickle.UnpicklingError, RuntimeError),
    *(kind for kind in manifest.DAMAGE if not issubclass(kind, OSError | MemoryError)),
)
UNREADABLE = (OSError, MemoryError, *DAMAGE)
NUMPY_TYPES = {"F16", "F32", "F64", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "BOOL"}
OTHER_KINDS = (
    (rb"\x89HDF", "an HDF5 file, as of Keras; save PyTorch's weights instead"),
    (rb"\s*<(!doctype|html|\?xml)", "a web page (of a failed download, perhaps)"),
    (rb"version https://git-lfs", "a pointer of Git LFS; fetch the file itself with git lfs pull"),
    (rb"\x93NUMPY", "a numpy array (.npy); save weight and bias with numpy.savez"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|\x28\xb5\x2f\xfd", "compressed; unpack it first"),
    (rb"GGUF", "a GGUF file; save PyTorch's weights instead"),
    (rb"MATLAB 5\.0", "a MATLAB file; save weight and bias with numpy.savez"),
    (rb"\x08[\x01-\x1f]\x12.{0,24}(onnx|torch|tf2|keras)|\x08[\x01-\x1f]\x12\x00",
     "an ONNX file; save PyTorch's weights instead"),
    (rb"\s*[{\[]", "JSON text; where it is an index of several files, give the one with the head"),
)  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file: its shape, and the function that reads it as an array."""

    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class StoredWeights:
    """The tensors of one network of a file.

    tensors have their names in the file; plain names them without what training wraps around a
    network, where they stay distinct. network is its place in the file, '' where there is but one;
    note says which was taken of several, and which were not.
    """

    tensors: dict[str, StoredTensor]
    plain: dict[str, str]
    network: str = ""
    note: str = ""


def split_network(text: Path | str) -> tuple[Path, str]:
    """Return the file and the network in it of FILE or FILE:NETWORK."""
    whole = Path(text)
    name, colon, network = str(text).rpartition(":")
    if colon and name and not os.path.lexists(whole) and os.path.lexists(name):
        return Path(name), network
    return whole, ""


def read_weights(path: Path, network: str = "") -> StoredWeights:
    """Return the named tensors of a file of weights, each of which is read when it is asked for.

    Training checkpoints are searched for the weights in them; network is the place of one in the
    file, as in 'state_dict', '' for the rule: of several versions of one network, averaged weights
    (EMA, SWA, a teacher, a target) come before the others, and these in the order of their names.
    Types that numpy lacks, such as bfloat16, are read as float32.
    """
    kind = file_kind(path)
    if kind == "npz":
        raise InputError(_refusal(path, "it is an .npz of numpy's arrays"))
    tensors = _from_safetensors(path) if kind == "safetensors" else _from_torch(path)
    if not tensors:
        raise InputError(f"{path} holds no state dict (a table of named tensors).")
    if not network:
        return _choose(path, _by_place(tensors))
    start = f"{network}."
    inner = {
        ("", name.removeprefix(start)): tensor
        for (place, short), tensor in tensors.items()
        if (name := _joined(place, short)).startswith(start)
    }
    if not inner:
        places = [place for place in sorted(_by_place(tensors)) if place]
        has = f"it has {_listed(places)}" if places else "it holds one network alone"
        raise InputError(f"{path} has no network {printable(network)!r}; {has}.")
    return replace(_choose(path, _by_place(inner)), network=network)


def strip_wrappers(name: str) -> str:
    """Return the name of a tensor without what training wraps around a network."""
    return name[len(_wrapping(name)) :].removeprefix(".")


def fit_names(tensors: Mapping[str, Any], expected: Iterable[str]) -> dict[str, Any]:
    """Return the tensors below the prefix under which most names are expected ones.

    What a file holds outside that prefix, such as a loss's own tensors, is left out.
    """
    names, prefixes = set(expected), Counter[str]()
    for name in tensors:
        parts = name.split(".")
        for k in range(min(len(parts), DEPTH + 1)):
            if ".".join(parts[k:]) in names:
                prefixes[".".join(parts[:k])] += 1
    if not prefixes:
        return {strip_wrappers(name): tensor for name, tensor in tensors.items()}
    best = max(prefixes, key=lambda prefix: (prefixes[prefix], -len(prefix)))
    start = f"{best}." if best else ""
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def file_kind(path: Path) -> str:
    """Return 'safetensors', 'npz', 'zip', 'pickle' or 'unknown', by the beginning of a file."""
    check_file(path)
    try:
        with path.open("rb") as file:
            start, size = file.read(600), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {(error.strerror or str(error)).lower()}."
        ) from None
    header = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and 2 <= header <= size - 8:
        return "safetensors"
    if start.startswith(b"PK\x03\x04"):  # the name of the first entry stands at byte 30
        return "npz" if b".npy" in start[30:90] else "zip"
    if start.startswith(b"\x80"):
        return "pickle"
    for pattern, reason in OTHER_KINDS:
        if re.match(pattern, start, re.IGNORECASE | re.DOTALL):
            raise InputError(_refusal(path, f"it is {reason}"))
    if start[257:262] == b"ustar":
        raise InputError(_refusal(path, "it is a tar archive; unpack it first"))
    return "safetensors" if path.suffix == ".safetensors" else "unknown"


def check_file(path: Path, *, or_folder: bool = False) -> None:
    """Raise InputError unless the path is that of a regular file (or of a folder, if asked)."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise InputError(f"{path} does not exist.") from None
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} cannot be read: {reason.lower()}.") from None
    if not stat.S_ISREG(mode) and not (or_folder and stat.S_ISDIR(mode)):
        kind = "folder" if stat.S_ISDIR(mode) else "pipe, a socket or a device"
        raise InputError(f"{path} is no file of weights but a {kind}.")


def _by_place(tensors: Mapping[tuple[str, str], Any]) -> dict[str, dict[str, Any]]:
    """Return the tensors of each place: the tables of the file and the wrappers around it."""
    places: dict[str, dict[str, Any]] = {}
    for (table, name), tensor in tensors.items():
        wrapping = _wrapping(name)
        place = _joined(table, wrapping)
        places.setdefault(place, {})[name[len(wrapping) :].removeprefix(".")] = tensor
    return places


def _choose(path: Path, places: Mapping[str, Mapping[str, StoredTensor]]) -> StoredWeights:
    """Take one of the networks that have the same tensors; what else there is stays beside it."""
    nameless = _nameless(places)
    places = {place: part for place, part in places.items() if place not in nameless}
    taken: dict[tuple[str, tuple[int, ...]], str] = {}
    rivals: dict[str, list[str]] = {}
    for place in sorted(places, key=_rank):
        keys = [(name, tensor.shape) for name, tensor in places[place].items()]
        shared = Counter(taken[key] for key in keys if key in taken).most_common(1)
        rivals[place] = []
        for other, count in shared:
            if 2 * count >= min(len(keys), len(places[other])):
                rivals.pop(place)
                rivals[other].append(place)
        if place in rivals:
            taken |= {key: place for key in keys if key not in taken}
    named = [
        (name, _joined(place, name), place, tensor)
        for place in rivals
        for name, tensor in places[place].items()
    ]
    counts = Counter(short for short, *_ in named)
    alone = len([place for place in rivals if len(places[place]) > 1]) == 1
    plain = {}
    for short, full, place, _ in named:
        name = short if alone or rivals[place] else strip_wrappers(full)
        plain[full] = full if counts[short] > 1 else name
    chosen = [place for place in rivals if rivals[place]]
    notes = [_note(path, place, rivals[place]) for place in chosen]
    if nameless:
        notes.append(
            f"{path.name} holds averaged weights besides, {_listed(nameless)}, which do not name "
            "the layers and are not read."
        )
    tensors = {full: tensor for _, full, _, tensor in named}
    return StoredWeights(tensors, plain, chosen[0] if chosen else "", " ".join(notes))


def _nameless(places: Mapping[str, Mapping[str, StoredTensor]]) -> list[str]:
    """Return places of averaged weights that have the shapes of a network, but not its names."""
    averaged = {place: part for place, part in places.items() if not _rank(place)[0]}
    shapes = {p: Counter(tensor.shape for tensor in part.values()) for p, part in places.items()}
    return [
        place
        for place, part in averaged.items()
        if not any("." in name for name in part)
        for other in places.keys() - averaged.keys()
        if 2 * (shapes[place] & shapes[other]).total() > max(len(part), len(places[other]), 2)
        and 2 * len(part.keys() & places[other].keys()) < len(part)
    ]


def _note(path: Path, place: str, others: list[str]) -> str:
    averaged = " (averaged weights)" if _rank(place)[0] is False else ""
    taken = f"{place}{averaged}" if place else "that without a name of its own"
    advice = others[0] or "NAME"
    return (
        f"{path.name} holds {len(others) + 1} networks of the same layers: {taken} was taken, not "
        f"{_listed(others)}; {path.name}:{advice} takes that one."
    )


def _rank(place: str) -> tuple[bool, bool, str]:
    """Order the places of networks: averaged weights first, keys of a queue last."""
    words = set(re.split(r"[._]", place.lower()))
    return words.isdisjoint(AVERAGED), "k" in words, place


def _wrapping(name: str) -> str:
    """Return the beginning of a name that training wraps around a network, as 'module.model'."""
    parts = name.split(".")[: DEPTH + 1]
    count = 0
    while (
        count < len(parts) - 1
        and len(parts[count]) > 1  # q and k alone are layers
        and set(parts[count].lower().split("_")) <= WRAPPING | AVERAGED
    ):
        count += 1
    return ".".join(parts[:count])


def _joined(place: str, name: str) -> str:
    return f"{place}.{name}" if place and name else place or name


def _listed(names: list[str]) -> str:
    shown = [name or "that without a name" for name in names[:MOST_LISTED]]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest:,} more" if rest else "")


def _from_safetensors(path: Path) -> dict[tuple[str, str], StoredTensor]:
    try:
        file = safe_open(path, framework="numpy")  # checks the header and the length
        stored = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        types = {name: part.get_dtype() for name, part in stored.items()}
        return {
            ("", name): StoredTensor(
                tuple(part.get_shape()), partial(_read_stored, path, file, name, types[name])
            )
            for name, part in stored.items()
        }
    except UNREADABLE as error:
        raise InputError(
            f"{path} cannot be read as weights: it is no readable safetensors file "
            f"({printable(str(error))})."
        ) from None


def _read_stored(path: Path, file: Any, name: str, dtype: str) -> NDArray[Any]:
    if dtype.startswith("C"):
        raise InputError(_unfit(path, name, "complex"))
    try:
        if dtype in NUMPY_TYPES:
            return file.get_tensor(name)
        with safe_open(path, framework="pt") as other:  # torch is imported for other types alone
            return other.get_tensor(name).float().numpy()
    except UNREADABLE as error:
        raise InputError(
            _unfit(path, name, f"of a type that cannot be read ({printable(str(error))})")
        ) from None


def _from_torch(path: Path) -> dict[tuple[str, str], StoredTensor]:
    try:
        file = read_torch(path)
    except ForeignClassError as error:
        reason = (
            f"it holds Python objects beside tensors ({printable(str(error))}), and reading them "
            "would run code. Save model.state_dict() instead"
        )
    except UNREADABLE as error:
        said = str(error) if str(error).startswith("it is ") else ""
        reason = said or "it is another kind of file, or damaged"
        if not path.stat().st_size:
            reason = "it is empty"
    else:
        return {
            (place, name): StoredTensor(
                tensor.shape, partial(_read_torch, path, file, name, tensor)
            )
            for place, name, tensor in _tensors(file.content)
        }
    raise InputError(_refusal(path, reason))


def _tensors(content: Any) -> Iterator[tuple[str, str, TorchTensor]]:
    """Yield place, name and tensor of all named tensors of nested tables, but of optimisers."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    seen: set[int] = set()
    while waiting:
        place, level = waiting.pop(0)
        if id(level) in seen or len(place) > DEPTH:
            continue
        seen.add(id(level))
        if isinstance(level, list | tuple):
            kinds = Mapping if _rank(".".join(place))[0] else (Mapping, TorchTensor)
            level = {str(k): part for k, part in enumerate(level) if isinstance(part, kinds)}
        elif not isinstance(level, Mapping) or "param_groups" in level:
            continue
        for name, part in level.items():
            if isinstance(name, str) and isinstance(part, TorchTensor):
                yield ".".join(place), name, part
            elif (
                isinstance(name, str)
                and isinstance(part, Mapping | list | tuple)
                and not name.lower().startswith("optim")
            ):
                waiting.append(((*place, name), part))


def _read_torch(path: Path, file: TorchFile, name: str, tensor: TorchTensor) -> NDArray[Any]:
    if tensor.unreadable:
        raise InputError(_unfit(path, name, tensor.unreadable))
    try:
        return file.array(tensor)
    except UNREADABLE as error:
        raise InputError(_unfit(path, name, f"damaged ({printable(str(error))})")) from None


def _unfit(path: Path, name: str, reason: str) -> str:
    return f"{path} cannot be read as weights: {printable(name)} is {reason}."


def _refusal(path: Path, reason: str) -> str:
    return (
        f"{path} cannot be read as weights: headscope takes .safetensors, or a torch file of "
        f"tensors; {reason}."
    )


def printable(text: str, most: int = 100) -> str:
    """Return text of a file for a message: in one line, and not long."""
    plain = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
    return plain if len(plain) <= most else f"{plain[:most]}…"
