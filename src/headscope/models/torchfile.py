"""Torch's files of tensors, read without torch and with nothing in them executed.

A file is a zip archive (since torch 1.6) or a row of pickles with the storages behind them. Its
pickle is read by an interpreter in which every class that is no tensor stands for `Inert`: plain
settings beside the weights (argparse.Namespace, numpy's scalars, paths) are passed over, and any
other class is refused.
"""

import mmap
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # the first two pickles of a file before torch 1.6
MOST_PICKLED = 2**26  # bytes: names and shapes of half a million tensors
LARGE = 2**26  # bytes beyond which a tensor or an entry may not expand twentyfold
DTYPES = {
    **{"Float": "f4", "Double": "f8", "Half": "f2", "BFloat16": "bf16", "Bool": "?"},
    **{"Long": "i8", "Int": "i4", "Short": "i2", "Char": "i1", "Byte": "u1", "Untyped": "u1"},
    **{"QInt8": "i1", "QUInt8": "u1", "QInt32": "i4", "QUInt4x2": "u1", "QUInt2x4": "u1"},
    **{"ComplexFloat": "c8", "ComplexDouble": "c16", "ComplexHalf": "c4"},
    **{"float32": "f4", "float64": "f8", "float16": "f2", "bfloat16": "bf16", "bool": "?"},
    **{f"{sign}int{8 * n}": f"{sign or 'i'}{n}" for sign in ("", "u") for n in (1, 2, 4, 8)},
    **{"complex64": "c8", "complex128": "c16"},
}
KINDS = ("float8", "float4", "q", "per_", "sparse_", "strided")  # further words for a tensor's type
UNREADABLE = {
    "_rebuild_qtensor": "quantised",
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_meta_tensor_no_storage": "empty (on the device 'meta')",
    "_rebuild_nested_tensor": "nested",
    "_rebuild_wrapper_subclass": "of a special kind",
    "_rebuild_device_tensor_from_numpy": "of a special kind",
    "_rebuild_device_tensor_from_cpu_tensor": "of a special kind",
}
# settings and counters that training saves beside the weights: modules, and names of modules
_MODULES = (
    *("argparse", "pathlib", "datetime", "enum", "decimal", "fractions", "uuid", "collections"),
    *("numpy.dtypes", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric"),
    *("numpy._core.numeric", "numpy.random", "omegaconf", "yacs", "easydict", "addict", "munch"),
    *("mmengine", "mmcv", "ml_collections", "fvcore", "pytorch_lightning", "lightning", "typing"),
    *("lightning_fabric", "lightning_utilities", "torchmetrics", "torch.optim", "timm.data"),
    "torchvision.transforms",
)
INERT_MODULES = tuple(f"{module}." for module in _MODULES)
INERT_NAMES = {
    *("types.SimpleNamespace", "functools.partial", "numpy.dtype", "numpy.ndarray"),
    *("numpy.float64", "numpy.float32", "numpy.int64", "copyreg._reconstructor", "_codecs.encode"),
    *("torch.device", "torch.Generator", "torch.serialization._get_layout"),
    *(
        f"{module}.{name}"
        for module in ("builtins", "__builtin__")
        for name in ("set", "frozenset", "slice", "complex", "range", "int", "float", "str",
                     "bool", "list", "tuple", "bytes", "object")
    ),
}  # fmt: skip


class ForeignClassError(pickle.UnpicklingError):
    """The pickle names a class that is neither a tensor nor a plain setting; the message is it."""


class Inert:
    """What stands for anything that is no tensor: it takes all arguments and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> "Inert":
        """Return a new one, whatever the arguments."""
        return super().__new__(cls)

    def append(self, *_: Any) -> None:
        """Ignore what a container would take."""

    __init__ = __setitem__ = extend = add = update = append


class Table(dict[Any, Any]):
    """A dictionary of whatever kind."""

    def __init__(self, *arguments: Any) -> None:
        """Take the pairs, or none: a defaultdict names the class of its values."""
        super().__init__(*(part for part in arguments if isinstance(part, list | dict)))


@dataclass(frozen=True)
class TorchStorage:
    """Numbers in the file: what they are, their key, and how many."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True)
class TorchTensor:
    """A tensor of the file: its shape, where its numbers are, and why they cannot be read, or ''.

    offset and strides count numbers of the storage.
    """

    shape: tuple[int, ...]
    storage: TorchStorage
    offset: int = 0
    strides: tuple[int, ...] = ()
    unreadable: str = ""


@dataclass(frozen=True)
class TorchFile:
    """What a torch file holds, as dictionaries and lists of `TorchTensor`s."""

    content: Any
    _order: str
    _storage: Callable[[str], bytes | memoryview]

    def array(self, tensor: TorchTensor) -> NDArray[Any]:
        """Read a tensor; bfloat16 as float32. ValueError where the file does not hold it."""
        count, dtype = prod(tensor.shape), tensor.storage.dtype
        if not count:
            return np.zeros(tensor.shape, np.float32)
        raw = self._storage(tensor.storage.key)
        if count * _item_size(dtype) > max(LARGE, 2 * len(raw)):
            raise ValueError(f"{count:,} numbers are claimed of {len(raw):,} bytes")
        numbers = np.frombuffer(raw, self._order + ("u2" if dtype == "bf16" else dtype))
        strides = [numbers.itemsize * step for step in tensor.strides]
        part = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides)
        if dtype == "bf16":
            return (part.astype(np.uint32) << 16).view(np.float32)
        return part.astype(part.dtype.newbyteorder("="))


def read_torch(path: Path) -> TorchFile:
    """Read what a torch file holds; the numbers of its tensors stay in the file.

    Raises
    ------
    ForeignClassError
        It holds objects that only running code would restore.
    UNREADABLE of `headscope.models.tensors`
        It is damaged, or another kind of file.
    """
    return _read_zip(path) if zipfile.is_zipfile(path) else _read_row(path)


def _read_zip(path: Path) -> TorchFile:
    archive = zipfile.ZipFile(path)
    entries = {info.filename: info for info in archive.infolist()}
    pickled = min((n for n in entries if n.split("/")[-1] == "data.pkl"), key=len, default="")
    root = pickled.removesuffix("data.pkl")
    if not pickled:
        raise ValueError("it is a zip archive, and none of torch's tensors")
    if any(name.startswith((f"{root}code/", f"{root}constants.pkl")) for name in entries):
        raise ValueError("it is a TorchScript program; save model.state_dict() instead")

    def read(name: str, most: int) -> bytes:
        info = entries[root + name]
        if info.file_size > max(most, 20 * info.compress_size) or info.file_size > 2**36:
            raise ValueError(f"{name} would expand to {info.file_size:,} bytes")
        return archive.read(info)

    if entries[pickled].file_size > MOST_PICKLED:
        raise ValueError(f"its list of tensors has {entries[pickled].file_size:,} bytes")
    sizes = {name: info.file_size for name, info in entries.items()}
    content = _Interpreter(
        BytesIO(read("data.pkl", MOST_PICKLED)), lambda key: sizes[f"{root}data/{key}"]
    ).load()
    order = read("byteorder", 100) if f"{root}byteorder" in entries else b"little"
    last = lru_cache(maxsize=1)(lambda key: read(f"data/{key}", LARGE))
    return TorchFile(content, ">" if order == b"big" else "<", last)


def _read_row(path: Path) -> TorchFile:
    """Read a file of torch before 1.6: magic number, version, system, content, keys, storages."""
    with path.open("rb") as file:
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    storages: dict[str, TorchStorage] = {}
    if _Interpreter(whole).load() != MAGIC or _Interpreter(whole).load() != PROTOCOL:
        raise ValueError("it is a pickle, and none of torch's tensors")
    system = _Interpreter(whole).load()
    content = _Interpreter(whole, storages=storages).load()
    places: dict[str, tuple[int, int]] = {}
    for key in _Interpreter(whole).load():
        count = int.from_bytes(whole.read(8), "little")
        if key in storages and count != storages[key].count:
            raise ValueError("its storages have other sizes than its tensors")
        start = whole.tell()
        places[key] = start, start + count * _item_size(storages[key].dtype)
        whole.seek(places[key][1])  # ValueError beyond the end
    little = not isinstance(system, Mapping) or system.get("little_endian", True)

    def read(key: str) -> bytes:
        return whole[slice(*places[key])]

    return TorchFile(content, "<" if little else ">", read)


class _Interpreter(pickle._Unpickler):
    """A pickle's interpreter that makes tensors, plain containers and nothing else.

    Python's own, as the one in C reserves memory for whatever a damaged file claims.
    """

    dispatch: ClassVar[dict[int, Any]] = {
        code: function
        for code, function in pickle._Unpickler.dispatch.items()
        # extensions, buffers and byte arrays of a claimed size: torch writes none
        if bytes([code]) not in (pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.BYTEARRAY8,
                                 pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)
    }  # fmt: skip

    def __init__(
        self,
        file: Any,
        size_of: Callable[[str], int] | None = None,
        storages: dict[str, TorchStorage] | None = None,
    ) -> None:
        super().__init__(file, encoding="utf-8", errors="replace")
        self._size_of, self._storages = size_of, storages

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a class or function of the pickle; nothing is imported."""
        full = f"{module}.{name}"
        if module in ("torch._utils", "torch._tensor") and name in REBUILDERS:
            return REBUILDERS[name]
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return name.removesuffix("Storage")
        if module == "torch" and (name in DTYPES or name.startswith(KINDS)):
            return name
        if full == "torch.Size":
            return tuple
        if name in ("OrderedDict", "defaultdict", "dict") and "." not in module:
            return Table
        inert = full in INERT_NAMES or f"{module}.".startswith(INERT_MODULES)
        if inert and "." not in name:
            return Inert
        raise ForeignClassError(full)

    def persistent_load(self, pid: Any) -> TorchStorage:
        """Return the storage of an entry ('storage', kind, key, device, count)."""
        _, kind, key, _, count = pid[:5]
        if not isinstance(kind, str) or not isinstance(key, str) or not isinstance(count, int):
            raise ValueError("it names a storage that is none")
        if len(pid) > 5 and pid[5] is not None:
            raise ValueError("its storages share memory, as in torch before 0.4")
        storage = TorchStorage(DTYPES.get(kind, kind), key, count)
        needed = count * _item_size(storage.dtype) if storage.dtype in DTYPES.values() else 0
        if self._size_of is not None and self._size_of(key) < needed:
            raise ValueError("a tensor has fewer numbers than it claims")
        if self._storages is not None:
            self._storages[key] = storage
        return storage

    def load_build(self) -> None:
        """Drop the state of an object: nothing here has one that matters."""
        self.stack.pop()  # type: ignore[attr-defined]

    dispatch[pickle.BUILD[0]] = load_build


def _item_size(dtype: str) -> int:
    return 2 if dtype == "bf16" else int(dtype[1:] or 1)


def _tensor(
    storage: TorchStorage,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *_: Any,
) -> TorchTensor:
    """Return a tensor, if its storage holds it."""
    sizes = [offset, *shape, *strides]
    if not all(isinstance(n, int) and 0 <= n < 2**62 for n in sizes) or len(shape) > 32:
        raise ValueError("a tensor has a shape that is none")
    if len(shape) != len(strides) or not isinstance(storage, TorchStorage):
        raise ValueError("a tensor has a shape that is none")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if prod(shape) and last >= storage.count:
        raise ValueError("a tensor has fewer numbers than it claims")
    unreadable = "" if storage.dtype in DTYPES.values() else f"of the type {storage.dtype}"
    if storage.dtype.startswith("c"):
        unreadable = "complex"
    return TorchTensor(tuple(shape), storage, offset, tuple(strides), unreadable)


def _typed_tensor(storage: TorchStorage, *arguments: Any) -> TorchTensor:
    """Return a tensor of a storage of bytes, whose type is given beside it."""
    dtype = str(arguments[5])
    typed = DTYPES.get(dtype, dtype)
    count = storage.count // _item_size(typed) if dtype in DTYPES else 2**62
    return _tensor(TorchStorage(typed, storage.key, count), *arguments[:4])


def _unreadable(why: str, *arguments: Any) -> TorchTensor:
    inner = [part for part in arguments if isinstance(part, tuple)]
    inner += [part for argument in inner for part in argument if isinstance(part, tuple)]
    shapes = [part for part in inner if part and all(type(n) is int for n in part)]
    return TorchTensor(shapes[0] if shapes else (), TorchStorage("", "", 0), unreadable=why)


def _first(value: Any, *_: Any) -> Any:
    return value


def _subclass(rebuild: Any, _: Any, arguments: tuple[Any, ...], *__: Any) -> Any:
    if rebuild not in REBUILDERS.values():
        raise ValueError("a tensor is made by no function of torch")
    return rebuild(*arguments)


REBUILDERS: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor": _tensor,
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_tensor_v3": _typed_tensor,
    "_rebuild_parameter": _first,
    "_rebuild_parameter_with_state": _first,
    "_rebuild_from_type_v2": _subclass,
    **{name: partial(_unreadable, why) for name, why in UNREADABLE.items()},
}
