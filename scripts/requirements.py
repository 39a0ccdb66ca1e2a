"""Print what pyproject.toml asks for, one requirement a line: the dependencies, and all extras but those named.

    python scripts/requirements.py [EXTRA ...]
"""
from __future__ import annotations

import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib


def requirements(without: list[str]) -> list[str]:
    """Each requirement once. ValueError for an extra that there is not."""
    project = tomllib.loads((Path(__file__).parents[1] / 'pyproject.toml').read_text())['project']
    extras = project['optional-dependencies']
    if unknown := set(without) - set(extras):
        raise ValueError(f'no extra {", ".join(sorted(unknown))}; there are {", ".join(extras)}')
    lists = [project['dependencies'], *(some for name, some in extras.items() if name not in without)]
    return list(dict.fromkeys(one for some in lists for one in some))


if __name__ == '__main__':
    print('\n'.join(requirements(sys.argv[1:])))
