"""The trained network of a run, tensor by tensor: from one file, or from a backbone and a head."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from headscope.errors import InputError
from headscope.files import utf8_path
from headscope.manifest import reason_of
from headscope.record.run import BACKBONE, MODEL, Arrays, Run


class Tensors(Mapping[str, NDArray[Any]]):
    """The tensors of an open file and those in memory beside it; one is read when asked for."""

    def __init__(self, file: Any, beside: Arrays) -> None:
        """Take a file of `safe_open`, and the rest."""
        self._file, self._beside, self._names = file, beside, {*file.keys()} - beside.keys()

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Read a tensor."""
        if name in self._names:
            array: NDArray[Any] = self._file.get_tensor(name)
            return array
        return self._beside[name]

    def __iter__(self) -> Iterator[str]:
        """Name the tensors, in order."""
        return iter(sorted(self._names | self._beside.keys()))

    def __len__(self) -> int:
        """Count them."""
        return len(self._names) + len(self._beside)


@contextmanager
def open_network(run: Run) -> Iterator[Tensors]:
    """Yield the tensors of a run's network, by their names in it.

    A frozen run has the classifier in `head.npz` and the rest in its backbone.

    Raises
    ------
    InputError
        The run keeps no network (`Run.keeps_network`), or its file is damaged.
    """
    whole = run.place(MODEL).is_file()
    path = run.checked(MODEL if whole else BACKBONE)
    parts = () if whole else ("weight", "bias")
    beside = {f"{run.settings['classifier']}.{part}": run.head[part] for part in parts}
    try:
        with utf8_path(path) as name, safe_open(name, framework="numpy") as file:
            yield Tensors(file, beside)
    except SafetensorError as error:
        raise InputError(f"{path} is damaged ({reason_of(error)}).") from None
