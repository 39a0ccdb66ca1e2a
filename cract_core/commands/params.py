"""`cract params`: the table of the tracker's parameters."""
from __future__ import annotations


import argparse
import dataclasses

from .. import options
from ..config import TrackerConfig, field_type

DESCRIPTION = "Print the table of the tracker's parameters as Markdown."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def run(args: argparse.Namespace) -> int:
    print(parameter_table())
    return 0


def parameter_table(config: type = TrackerConfig) -> str:
    """The fields of `config` as a Markdown table."""
    rows = ['| parameter | type | default | range | unit | while tracking | meaning |', '|' + '---|' * 7]
    for field in dataclasses.fields(config):
        meta, default, limits = field.metadata, options.default_text(field), options.range_text(field)
        rows.append(f'| `{field.name}` | {field_type(field).__name__} | {default} | {limits} '
                    f'| {meta["unit"]} | {"yes" if meta["live"] else ""} | {meta["text"]} |'.replace('  ', ' '))
    return '\n'.join(rows)
