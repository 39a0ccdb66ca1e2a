"""Files as they come and as they are left: text of any origin, YAML, and results that are whole or not there.

Nothing is written over an input: `keep_apart` refuses that before any work begins, and `written` puts a result beside
its place and renames it when it is whole.
"""
from __future__ import annotations

import itertools
import os
import re
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Iterator, Mapping

_numbers = itertools.count()


def read_text(path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark. ValueError, one sentence, for another encoding."""
    path = Path(path)
    try:
        return path.read_bytes().decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is no UTF-8 text: byte 0x{error.object[error.start]:02x} at position {error.start}; '
                         'save it as UTF-8') from None


def read_yaml(path) -> dict:
    """The mapping in a YAML file, {} for an empty one; `1e-3` is a number, as in YAML 1.2.

    ValueError, one sentence, for what is no YAML or no mapping of names to values, and for a name that comes twice.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """PyYAML's, which takes a number in exponential form for a text unless it has a decimal point and a sign."""

        def construct_mapping(self, node, deep=False):
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
            if twice is not None:
                raise yaml.constructor.ConstructorError(None, None, f'{twice!r} is given twice', node.start_mark)
            return super().construct_mapping(node, deep)

    Loader.add_implicit_resolver('tag:yaml.org,2002:float', re.compile(
        r'[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$'), list('-+.0123456789'))
    text = read_text(path)
    try:
        content = yaml.load(text, Loader)
    except Exception as error:  # the constructors of PyYAML raise what they meet
        raise ValueError(f'{path} is not YAML: {" ".join(str(error).split())[:300] or type(error).__name__}') from None
    content = {} if content is None else content
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ValueError(f'{path}: expected a mapping of names to values')
    return content


def keep_apart(inputs: Mapping[str, str | Path | None], outputs: Mapping[str, str | Path | None]) -> None:
    """Refuse outputs that would destroy an input, each by the name under which the user gave it.

    An output must be no input, lie in no folder that is an input, and be no other output. It must not be a folder
    where a file is to be, as far as its name says so. Raises ValueError in one sentence.
    """
    read = {name: Path(path) for name, path in inputs.items() if path is not None and path != ''}
    made: dict[str, Path] = {}
    for name, path in outputs.items():
        if path is None or path == '':
            continue
        path = Path(path)
        if _is_stream(path):
            continue
        for other, source in read.items():
            if same(path, source):
                raise ValueError(f'{name} names {path}, which is the input {other}: nothing is written over an input')
            if source.is_dir() and _real(source) in _real(path).parents:
                raise ValueError(f'{name} names {path}, which lies in {source}, the input {other}: nothing is written '
                                 'among the inputs')
        for other, earlier in made.items():
            if same(path, earlier):
                raise ValueError(f'{name} and {other} name the same file {path}')
        made[name] = path


def same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file or folder, through links too; it need not be there."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return _real(one) == _real(other)


def check_place(path, folder: bool = False) -> None:
    """Raise what would keep a file (or a folder, with all that goes into it) from being written, before the work."""
    path = Path(path)
    if _is_stream(path):
        return
    if path.is_dir() and not folder:
        raise IsADirectoryError(f'cannot write {path}: it is a folder')
    if folder and path.exists() and not path.is_dir():
        raise NotADirectoryError(f'cannot write into {path}: it is no folder')
    parent = _real(path).parent
    if folder:  # its parents are made
        parent = next(one for one in (_real(path), *_real(path).parents) if one.exists())
    if not parent.is_dir():
        raise FileNotFoundError(f'cannot write {path}: there is no folder {parent}')
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(f'cannot write {path}: the folder {parent} is not writable')


@contextmanager
def written(path) -> Iterator[Path]:
    """A path beside `path` to write to; what is there takes its place when the block ends well, else it goes.

    A device or pipe, such as /dev/stdout, is written to directly. Through a link the file is replaced to which it leads.
    """
    path = Path(path)
    if _is_stream(path):
        yield path
        return
    check_place(path)
    place = _real(path)
    part = place.with_name(f'.part-{os.getpid()}-{next(_numbers)}{place.suffix[-16:]}')
    try:
        yield part
        if part.exists():
            os.replace(part, place)
    finally:
        part.unlink(missing_ok=True)


class ResultLines:
    """A text file that grows line by line beside its place, from the first line on, and takes it when a `with` block
    ends well or by an interruption; otherwise nothing is left."""

    def __init__(self, path):
        check_place(path)
        self._path, self._stack, self._file = path, ExitStack(), None

    def write(self, line: str, times: int = 1) -> None:
        if self._file is None and times:
            part = self._stack.enter_context(written(self._path))
            self._file = self._stack.enter_context(open(part, 'w', buffering=1, encoding='utf-8'))
        for _ in range(times):
            print(line, file=self._file)

    def __enter__(self) -> 'ResultLines':
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            kind = error = trace = None
        self._stack.__exit__(kind, error, trace)


def write_text(path, text: str) -> None:
    """Write a text file as UTF-8, whole or not at all; what of a file's name is no UTF-8 appears as in Python."""
    with written(path) as part:
        part.write_text(text, encoding='utf-8', errors='backslashreplace')


@contextmanager
def utf8_path(path) -> Iterator[str]:
    """A name of `path`, which must exist, for libraries in C++ that take UTF-8 and crash or fail at anything else.

    It is the path itself, or a link to it where the path is no UTF-8 or the locale has another encoding.
    """
    name = str(path)
    try:
        plain = os.fsencode(name) == name.encode()
    except UnicodeEncodeError:
        plain = False
    if plain:
        yield name
        return
    with tempfile.TemporaryDirectory(prefix='cract-') as folder:
        link = Path(folder, 'link' + ''.join(c for c in Path(name).suffix if c.isascii()))
        link.symlink_to(_real(Path(name)))
        yield str(link)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _is_stream(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()
