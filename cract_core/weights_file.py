"""The weights file `cract.pt`, read without torch: float16 tensors in the zip form of `torch.save`."""
from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from importlib import resources
from pathlib import Path
from typing import Collection, NamedTuple

import numpy as np

FORMAT = 1
MEMORY = 256 << 20  # bytes that all tensors of a file may have, twenty times those of these networks
CONTENT = 4 << 20  # bytes of what says which tensors there are


class Weights(NamedTuple):
    """state: parameter name -> float32 array, batch norm folded; channels of phi34.

    ranges: what `runtime.graphs.quantize` takes for int8, if it was measured; else empty.
    variant: the structure of an ablation, empty for the tracker's own.
    """
    state: dict[str, np.ndarray]
    channels: int
    ranges: dict[str, tuple[float, float]]
    variant: str = ''


class TooLarge(ValueError):
    """A file that would unpack to more than a network has."""


class _Unpickler(pickle.Unpickler):
    """Unpickles nothing but numbers, texts, dictionaries and tensors; the latter as arrays."""

    def __init__(self, archive: zipfile.ZipFile, root: str):
        name = f'{root}/data.pkl'
        if archive.getinfo(name).file_size > CONTENT:
            raise TooLarge(f'its table of contents has {archive.getinfo(name).file_size} bytes')
        super().__init__(archive.open(name))
        self.archive, self.root, self.left = archive, root, MEMORY

    def find_class(self, module: str, name: str):
        known = {('collections', 'OrderedDict'): OrderedDict, ('torch._utils', '_rebuild_tensor_v2'): _tensor,
                 ('torch', 'HalfStorage'): np.dtype('<f2'), ('torch', 'FloatStorage'): np.dtype('<f4')}
        if (module, name) not in known:
            raise pickle.UnpicklingError(f'{module}.{name} is no part of a weights file')
        return known[module, name]

    def persistent_load(self, identity) -> np.ndarray:
        _, dtype, key, _, _ = identity
        self.left -= self.archive.getinfo(f'{self.root}/data/{key}').file_size  # a tensor that is named twice counts twice
        if self.left < 0:
            raise TooLarge(f'its tensors unpack to more than {MEMORY >> 20} MiB')
        return np.frombuffer(self.archive.read(f'{self.root}/data/{key}'), dtype)


def _tensor(storage: np.ndarray, offset: int, shape: tuple, strides: tuple, *_) -> np.ndarray:
    """Element (i, j, ...) is storage[offset + i strides[0] + j strides[1] + ...]; ValueError outside of the storage."""
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides))
    if min([offset, *shape, *strides]) < 0 or last >= len(storage) or int(np.prod(shape)) > len(storage):
        raise ValueError('a tensor lies outside of its storage')
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, [step * storage.itemsize for step in strides],
                                           writeable=False)


def find_weights(path: str | Path = '') -> Path:
    """The weights file at `path`, or the one of the package for an empty path; FileNotFoundError if there is none."""
    source = Path(path) if path else Path(str(resources.files('cract_core'))) / 'weights' / 'cract.pt'
    if not source.is_file():
        raise FileNotFoundError(f'no weights at {source}: give the path of a file written by `cract train`')
    return source


def read_weights(path: str | Path = '', variants: Collection[str] = ('',)) -> Weights:
    """Read a weights file; an empty path takes the one of the package.

    Raises FileNotFoundError or ValueError; the latter also for a structure that is not among `variants`.
    """
    source = find_weights(path)
    try:
        with zipfile.ZipFile(source) as archive:
            root = archive.namelist()[0].split('/')[0]
            content = _Unpickler(archive, root).load()
        form, channels, state = content['format'], int(content['channels']), content['state']
        if sum(np.asarray(value).size for value in state.values()) > MEMORY // 2:
            raise TooLarge(f'its tensors have more than {MEMORY >> 21} million numbers')
        state = {name: np.asarray(value, np.float32) for name, value in state.items()}
        ranges, variant = content.get('ranges', {}), content.get('variant', '')
    except TooLarge as error:
        raise ValueError(f'{source} is not a readable weights file: {error}') from error
    except Exception as error:  # a damaged file shows in many types; all of them mean the same to the user
        raise ValueError(f'{source} is not a readable weights file ({type(error).__name__})') from error
    if form != FORMAT:
        raise ValueError(f'weights {source} have format {form}, this version reads {FORMAT}')
    if variant not in variants:
        raise ValueError(f'weights {source} are of the ablation {variant!r}: only `cract ablate` runs them')
    if not all(np.isfinite(value).all() for value in state.values()):
        raise ValueError(f'weights {source} hold numbers that are not finite')
    return Weights(state, channels, ranges, variant)
