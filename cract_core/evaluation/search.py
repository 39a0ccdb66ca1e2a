"""Choose the tracker's own knobs on annotated sequences.

Optuna's TPE sampler proposes values and each trial tracks the sequences one by one. A trial is stopped as soon as a
Wilcoxon signed-rank test over the sequences done so far says that it is worse than the best one. The study is a journal
file: it resumes, and several processes that name the same folder share it.
"""
from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from tqdm import tqdm

from ..config import TrackerConfig, field_type
from ..files import write_text
from . import runner
from .execution import Job, TrackerSpec
from .protocols import Difference, paired_difference
from .sequences import Sequence, read_folder, write_rendered

MACHINE = ('device', 'threads')     # what says nothing about the tracker's answers has no place in a tuned file
UNTUNED = ('threads', 'seed')


class Range(NamedTuple):
    """Values that the search may try; `log`: equally often in each decade."""
    low: float
    high: float
    log: bool = False


# Narrower than TrackerConfig allows, where the rest is known to be useless; what is not here has TrackerConfig's range.
RANGES = {
    'scale_penalty': Range(0.0, 0.3),        # Siamese trackers with anchors use 0.04 to 0.16
    'window_influence': Range(0.0, 0.7),     # above, nothing but the middle is ever proposed
    'size_rate': Range(0.1, 1.0),            # below, an approaching target outgrows its box
    'num_proposals': Range(3, 24),           # the time of a frame grows with it
    'nms_iou': Range(0.3, 0.8),              # beyond: one proposal an object, or N times the same
    'update_interval': Range(2, 50, log=True),
    'regularization': Range(1e-4, 1.0, log=True),
}
DEFAULT_PARAMETERS = ('alpha', 'beta', *RANGES)


def choose_ranges(names: tuple[str, ...], base: TrackerConfig) -> dict[str, Range]:
    """The range of each parameter, wide enough to hold its value in `base`. ValueError for one that has no range."""
    fields = {field.name: field for field in dataclasses.fields(TrackerConfig)
              if field_type(field) is not str and field.name not in UNTUNED}
    for name in names:
        if name not in fields:
            raise ValueError(f'cannot search {name!r}; numeric parameters are {", ".join(fields)}')
    ranges = {}
    for name in names:
        low, high = fields[name].metadata['minimum'], fields[name].metadata['maximum']
        chosen = RANGES.get(name, Range(low, high, log=0 < 100 * low <= high))
        value = getattr(base, name)
        ranges[name] = chosen._replace(low=min(chosen.low, value), high=max(chosen.high, value))
    return ranges


def rendered_clips(folder: Path, count: int, frames: int, seed: int) -> list[Sequence]:
    """`count` clips of cract_core.synthetic below `folder`, rendered unless they are there already."""
    clips = []
    for one in range(seed, seed + count):
        clip = folder / f'seed{one}-{frames}'
        if not (clip / 'groundtruth.txt').is_file():
            write_rendered(clip, frames, one)
        clips.append(read_folder(clip, f'rendered/{clip.name}'))
    return clips


def open_study(folder: Path, base: TrackerConfig, ranges: dict[str, Range], sequences: list[Sequence], seed: int):
    """The study in `folder`, new or to be continued; its first trial is `base`.

    ValueError where the folder holds a study of another tracker, other parameters or other sequences.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / 'study.journal')))
    study = optuna.create_study(study_name='tune', storage=storage, direction='maximize', load_if_exists=True)
    spec = TrackerSpec('cract', base)
    subject = dict(ranges={name: list(some) for name, some in ranges.items()},
                   sequences={one.name: Job(one, (spec,)).key(spec) for one in sequences})
    if study.user_attrs.setdefault('subject', subject) != subject:
        raise ValueError(f'{folder} holds a study of other parameters, sequences, weights or of another version: '
                         'give another --output')
    study.set_user_attr('subject', subject)
    done = study.get_trials(deepcopy=False)
    # a default that another process is just measuring may be measured twice: it may also have been killed
    if not any(is_default(trial) and trial.state.name in ('WAITING', 'COMPLETE') for trial in done):
        study.enqueue_trial({name: getattr(base, name) for name in ranges}, user_attrs={'default': True})
    # `seed + len(done)`: a resumed or a second process must not draw the same values again
    with warnings.catch_warnings():  # Optuna calls a pruner experimental for years; constraints.txt pins the version
        warnings.simplefilter('ignore', optuna.exceptions.ExperimentalWarning)
        study.sampler = optuna.samplers.TPESampler(seed=seed + len(done), multivariate=True, constant_liar=True)
        study.pruner = optuna.pruners.WilcoxonPruner(p_threshold=0.1)
    return study


def is_default(trial) -> bool:
    return 'default' in trial.user_attrs


def search(study, base: TrackerConfig, ranges: dict[str, Range], sequences: list[Sequence], trials: int) -> None:
    """Track all sequences, trial by trial, until the study has `trials` finished ones, stopped ones included."""
    import optuna
    from optuna.trial import TrialState
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    types = {field.name: field_type(field) for field in dataclasses.fields(TrackerConfig)}

    def suggest(trial, name: str) -> float | int:
        ask = trial.suggest_int if types[name] is int else trial.suggest_float
        return ask(name, ranges[name].low, ranges[name].high, log=ranges[name].log)

    def objective(trial) -> float:
        try:
            config = base.replace(**{name: suggest(trial, name) for name in ranges})
        except ValueError as error:  # two values that exclude each other
            raise optuna.TrialPruned from error
        tracker, scores = TrackerSpec('cract', config).make(), []
        for step, sequence in enumerate(sequences):
            bar.set_description(f'trial {trial.number}, {sequence.name}')
            scores.append(runner.summarize(runner.run_sequence(tracker, sequence, bar.refresh), sequence)['auc'])
            # the pruner pairs trials by sequence, so it is told each score and not their running mean
            trial.report(scores[-1], step)
            if trial.should_prune() and not is_default(trial):
                raise optuna.TrialPruned
        return float(np.mean(scores))

    def finished(study, trial) -> None:
        scores = list(trial.intermediate_values.values())
        mean = f'{np.mean(scores):.4f}' if scores else 'excluded values'
        stopped = '' if trial.state is TrialState.COMPLETE else f' (stopped after {len(scores)} sequences)'
        with bar.external_write_mode():
            print(f'trial {trial.number}: {mean}{stopped}  '
                  + ' '.join(f'{name}={value:.4g}' for name, value in trial.params.items()), flush=True)
        bar.n = len(study.get_trials(deepcopy=False, states=ended))
        if trial.state is TrialState.COMPLETE:
            bar.set_postfix(best=f'{study.best_value:.4f}')

    count = len(study.get_trials(deepcopy=False, states=ended))
    with tqdm(total=trials, initial=count, unit='trial', disable=None) as bar:
        if count < trials:
            study.optimize(objective, callbacks=[finished, optuna.study.MaxTrialsCallback(trials, states=ended)])


def summarize(study, sequences: list[Sequence], seed: int) -> dict:
    """What the study found: best and default values, AUC of each, importance, and what the difference is worth.

    `gain` is the best trial against the default on the same sequences, which flatters the best: it was chosen there.
    `held_out` judges each sequence by the trial that is best on the others. ValueError while the default is still
    being measured, by another process.
    """
    import optuna
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    if not any(map(is_default, complete)):
        raise ValueError('another process is still measuring the default: start the command again after it')
    scores = np.array([[trial.intermediate_values[step] for step in range(len(sequences))] for trial in complete])
    start = next(row for row, trial in enumerate(complete) if is_default(trial))
    best = int(scores.mean(1).argmax())
    importance = optuna.importance.get_param_importances(study) if len(complete) > 1 else {}
    return dict(
        default=complete[start].params, best=complete[best].params, importance=importance,
        trials=len(complete), stopped=len(study.get_trials(states=(optuna.trial.TrialState.PRUNED,))),
        auc=dict(default=float(scores[start].mean()), best=float(scores[best].mean())),
        sequences={one.name: dict(default=float(scores[start, column]), best=float(scores[best, column]))
                   for column, one in enumerate(sequences)},
        gain=paired_difference(scores[best], scores[start], seed)._asdict(),
        held_out=paired_difference(held_out_scores(scores), scores[start], seed)._asdict())


def held_out_scores(scores: np.ndarray) -> np.ndarray:
    """scores (T, S) of T trials on S sequences -> (S,): each sequence's score in the trial best on all the others."""
    others = scores.sum(1, keepdims=True) - scores
    return scores[others.argmax(0), np.arange(scores.shape[1])]


def table(figures: dict) -> str:
    """The end of a search in words and numbers."""
    importance = figures['importance']
    names = sorted(figures['best'], key=lambda name: -importance.get(name, 0))
    width = max(len(name) for name in (*names, *figures['sequences'], 'mean AUC'))
    lines = [f'{"parameter":{width}}   default      best  importance']
    lines += [f'{name:{width}}{figures["default"][name]:>10.4g}{figures["best"][name]:>10.4g}'
              f'{importance.get(name, float("nan")):>12.2f}' for name in names]
    lines += ['', f'{"AUC":{width}}   default      best']
    lines += [f'{name:{width}}{one["default"]:>10.4f}{one["best"]:>10.4f}'
              for name, one in figures['sequences'].items()]
    lines += [f'{"mean AUC":{width}}{figures["auc"]["default"]:>10.4f}{figures["auc"]["best"]:>10.4f}', '',
              f'{figures["trials"]} trials on all {len(figures["sequences"])} sequences, '
              f'{figures["stopped"]} stopped early',
              f'best - default, on the sequences it was chosen on: {Difference(**figures["gain"])}',
              'best - default, each sequence with the values best on the others: '
              f'{Difference(**figures["held_out"])}']
    return '\n'.join(lines)


def write_config(path: Path, config: TrackerConfig, text: str) -> None:
    """YAML that `--config` reads: all that differs from the defaults but the machine, with `text` as a comment."""
    default = TrackerConfig()
    values = {name: value for name, value in dataclasses.asdict(config).items()
              if name not in MACHINE and value != getattr(default, name)}
    comment = ''.join(f'# {line}'.rstrip() + '\n' for line in text.splitlines())
    write_text(path, comment + yaml.safe_dump(values, sort_keys=False))
