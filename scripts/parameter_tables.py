"""Rewrite the parameter tables of docs/node.md from the code: `.venv/bin/python scripts/parameter_tables.py`.

A table stands between `<!-- TrackerConfig -->` or `<!-- NodeConfig -->` and `<!-- end -->`.
"""
from __future__ import annotations

import re
from pathlib import Path

from cract_core.commands.params import parameter_table
from cract_core.config import TrackerConfig
from cract_ros.parameters import NodeConfig

PAGE = Path(__file__).resolve().parent.parent / 'docs' / 'node.md'


def with_tables(page: str) -> str:
    """The page with its tables as they should be. Raises ValueError where one has no place."""
    for config in (TrackerConfig, NodeConfig):
        begin, end = f'<!-- {config.__name__} -->\n', '\n<!-- end -->'
        page, places = re.subn(f'{begin}.*?{end}', lambda _: begin + parameter_table(config) + end, page, flags=re.S)
        if places != 1:
            raise ValueError(f'{begin.strip()} ... {end.strip()} stands {places} times in {PAGE.name}')
    return page


if __name__ == '__main__':
    PAGE.write_text(with_tables(PAGE.read_text()))
