"""Average the weights of several trainings of one network: `.venv/bin/python scripts/average_weights.py OUT IN IN ...`.

The inputs must go back to common weights, such as two legs of one training: averages of unrelated networks are worthless.
"""
from __future__ import annotations

import argparse

import torch

from cract_core.model import CractModel, load_weights, save_weights


def average(paths: list[str]) -> CractModel:
    """The mean of the parameters. Raises FileNotFoundError or ValueError for files that cannot be averaged."""
    models = [load_weights(path) for path in paths]
    if len({(model.variant, model.channels) for model in models}) > 1:
        raise ValueError('the files hold networks of different structure')
    states = [model.state_dict() for model in models]
    models[0].load_state_dict({name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
                               for name, value in states[0].items()})
    return models[0]


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0].split(':')[0])
    parser.add_argument('output', metavar='OUT')
    parser.add_argument('inputs', metavar='IN', nargs='+')
    given = parser.parse_args()
    try:
        save_weights(average(given.inputs), given.output)
    except (OSError, ValueError) as error:
        parser.exit(2, f'{error}\n')
