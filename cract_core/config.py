"""The one table of the tracker's parameters: default, unit, range and reason stand here and nowhere else.

ROS parameter descriptors, command-line options and the documentation are made from `TrackerConfig`.
Symbols in parentheses are those of the paper (CRACT, Fan and Ling).
"""
from __future__ import annotations

import dataclasses
import difflib
import math
from dataclasses import dataclass
from typing import Any, Mapping

AUTO, CPU, CUDA = 'auto', 'cpu', 'cuda'
ON, OFF = 'on', 'off'
RUNTIMES = ('torch', 'openvino', 'onnx', 'tensorrt')
PRECISIONS = ('fp32', 'fp16', 'bf16', 'int8')


def parameter(default, text: str, *, minimum=None, maximum=None, choices: tuple = (), unit: str = '',
              live: bool = False):
    """A dataclass field that carries its own documentation.

    `live` marks a parameter that may change while a target is being tracked.
    """
    return dataclasses.field(default=default, metadata=dict(
        text=text, minimum=minimum, maximum=maximum, choices=choices, unit=unit, live=live))


@dataclass(frozen=True)
class TrackerConfig:
    """What a user may set. Every value is checked on construction (ValueError, one sentence)."""

    # Score fusion
    alpha: float = parameter(
        0.4, 'weight of the identifier against the discriminator in the classification score (alpha, Eq. 9)',
        minimum=0.0, maximum=1.0, live=True)
    beta: float = parameter(
        0.8, 'weight of the refined against the coarse score in the final score (beta, Eq. 10)',
        minimum=0.0, maximum=1.0, live=True)

    # Proposals
    num_proposals: int = parameter(
        10, 'proposals kept after non-maximum suppression and refined in each frame (N)', minimum=1, maximum=64)
    nms_iou: float = parameter(
        0.5, 'overlap above which the lower ranked of two proposals is dropped', minimum=0.05, maximum=0.95)
    fill_iou: float = parameter(
        0.75, 'places that are left go to proposals that overlap others by up to this: further views of them',
        minimum=0.05, maximum=0.95)
    vote_iou: float = parameter(
        0.6, 'refined boxes that overlap the best one by more than this are averaged with it, by the cube of their scores; 1: '
        'the best alone (the paper)', minimum=0.0, maximum=1.0, live=True)
    scale_penalty: float = parameter(
        0.05, 'how much a change of scale or aspect between two frames lowers the rank of an anchor',
        minimum=0.0, maximum=1.0, live=True)
    window_influence: float = parameter(
        0.42, 'how much a cosine window over the search region decides the rank of an anchor',
        minimum=0.0, maximum=1.0, live=True)
    size_rate: float = parameter(
        0.38, 'how fast the box size follows the refined box, before weighting with the score',
        minimum=0.0, maximum=1.0, live=True)

    # Discriminator: samples
    update_interval: int = parameter(
        10, 'frames between two regular updates of the discriminator (K)', minimum=1, maximum=1000, unit='frames',
        live=True)
    update_gap: int = parameter(
        3, 'frames between two updates at least, however often a distractor or a low score asks for one', minimum=1,
        maximum=1000, unit='frames', live=True)
    init_positives: int = parameter(
        200, 'positive samples drawn in the first frame', minimum=1, maximum=2000, unit='samples')
    init_negatives: int = parameter(
        1000, 'negative samples drawn in the first frame', minimum=1, maximum=10000, unit='samples')
    update_positives: int = parameter(
        50, 'positive samples drawn for an update (n+)', minimum=1, maximum=1000, unit='samples')
    update_negatives: int = parameter(
        150, 'negative samples drawn for an update (n-)', minimum=1, maximum=5000, unit='samples')
    long_memory: int = parameter(
        100, 'frames whose samples are kept for long-term updates', minimum=1, maximum=1000, unit='frames')
    short_memory: int = parameter(
        20, 'latest frames whose samples serve short-term updates', minimum=1, maximum=1000, unit='frames')

    # Discriminator: solver
    regularization: float = parameter(
        0.003, 'weight of the L2 penalty on the discriminator (lambda, Eq. 8), samples weighing 1 together',
        minimum=1e-6, maximum=100.0)
    init_iterations: int = parameter(
        5, 'Gauss-Newton steps in the first frame', minimum=1, maximum=100)
    update_iterations: int = parameter(
        1, 'Gauss-Newton steps in an update', minimum=1, maximum=20)
    cg_iterations: int = parameter(
        20, 'conjugate-gradient steps inside one Gauss-Newton step', minimum=1, maximum=200)
    learn_score: float = parameter(
        0.05, 'below this score D learns nothing new of the target: it trains once more on its latest samples', minimum=0.0,
        maximum=1.0, live=True)

    # Trust
    score_slope: float = parameter(
        9.96, 'score = 1 / (1 + exp(-(slope * Eq. 10 + offset))), a probability; `cract calibrate` fits both to the weights',
        minimum=0.1, maximum=100.0, live=True)
    score_offset: float = parameter(
        -7.60, 'see `score_slope`', minimum=-100.0, maximum=100.0, live=True)
    tracking_score: float = parameter(
        0.5, 'an uncertain target counts as TRACKING again at this score',
        minimum=0.0, maximum=1.0, live=True)
    uncertain_score: float = parameter(
        0.3, 'a score below this makes the state UNCERTAIN', minimum=0.0, maximum=1.0, live=True)
    lost_score: float = parameter(
        0.005, 'a score below this for `lost_frames` frames makes the state LOST', minimum=0.0, maximum=1.0,
        live=True)
    lost_frames: int = parameter(
        3, 'consecutive frames below `lost_score` before the target counts as lost', minimum=1, maximum=1000,
        unit='frames', live=True)
    fall_ratio: float = parameter(
        0.05, 'a score below this part of its running mean has fallen: D learns nothing new of the target', minimum=0.0,
        maximum=1.0, live=True)
    fall_frames: int = parameter(
        5, 'consecutive frames with a fallen score before the target counts as lost', minimum=1, maximum=1000,
        unit='frames', live=True)
    reacquire_score: float = parameter(
        0.06, 'a lost target is taken back only at this score', minimum=0.0, maximum=1.0, live=True)
    reacquire_identification: float = parameter(
        0.02, '... and only if the identifier gives at least this', minimum=0.0, maximum=1.0,
        live=True)
    reacquire_discrimination: float = parameter(
        0.4, '... and only if the discriminator, too, gives at least this', minimum=0.0,
        maximum=1.0, live=True)
    reacquire_frames: int = parameter(
        2, 'consecutive frames that must agree on a place before a lost target is taken back', minimum=1, maximum=100,
        unit='frames', live=True)
    continue_discrimination: float = parameter(
        0.6, 'the hypothesis that is followed while the target is lost goes on if the discriminator gives at least this',
        minimum=0.0, maximum=1.0, live=True)
    continue_frames: int = parameter(
        5, '... and after so many looks at it in a row it is the target again, whatever the identifier says', minimum=1,
        maximum=100000, unit='looks', live=True)
    search_growth: float = parameter(
        1.5, 'the search region of a lost target grows in steps to this many times its side', minimum=1.0, maximum=3.0,
        live=True)
    scan_step: float = parameter(
        0.6, 'step of the scan for a lost target, as a part of the search region', minimum=0.1, maximum=2.0, live=True)

    # Recent view of the target for the identifier
    view_interval: int = parameter(
        10, 'frames between two recent views that the identifier compares with, beside the first', minimum=1, maximum=100000,
        unit='frames', live=True)
    view_score: float = parameter(
        0.8, 'a recent view is taken only at this score', minimum=0.0, maximum=1.0, live=True)
    view_agreement: float = parameter(
        0.5, '... and only if identifier and discriminator each give at least this', minimum=0.0, maximum=1.0, live=True)

    # Camera
    camera_motion: str = parameter(
        ON, "the picture's own motion (shift, turn, scale) is found in the background and moves the search region",
        choices=(ON, OFF), live=True)
    velocity_rate: float = parameter(
        0.3, "how fast the target's own velocity beside the camera's follows, before weighting with the score; 0: none is assumed",
        minimum=0.0, maximum=1.0, live=True)
    template_turn: float = parameter(
        45.0, 'turn of the camera since the template beyond which the template of the first frame is turned along; 180: never',
        minimum=15.0, maximum=180.0, unit='degrees', live=True)
    guess_identification: float = parameter(
        0.8, 'the template of an uncertain target is tried at other turns, too, and kept where the identifier gives at least '
        'this; 1: never', minimum=0.0, maximum=1.0, live=True)
    steadiness: float = parameter(
        0.02, "a step of the centre shorter than this part of the target's size is followed in part only: the box does not "
        'tremble; 0: at once', minimum=0.0, maximum=0.2, live=True)

    # Machine
    device: str = parameter(AUTO, 'where the networks run; auto takes CUDA if there is one', choices=(AUTO, CPU, CUDA))
    runtime: str = parameter(
        AUTO, 'what runs the networks; auto takes torch on CUDA, else what is installed of openvino, onnx, torch',
        choices=(AUTO, *RUNTIMES))
    precision: str = parameter(
        AUTO, 'numbers of the networks; auto takes fp16 on CUDA, else int8 where weights and runtime have it, else fp32',
        choices=(AUTO, *PRECISIONS))
    threads: int = parameter(0, 'CPU threads of the networks; 0 leaves the choice to the library',
                             minimum=0, maximum=256)
    weights: str = parameter('', 'path of the weights; empty takes those that come with the package')
    seed: int = parameter(0, 'seed of the sampler: the same seed gives the same track', minimum=0, maximum=2**31 - 1)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            check_value(field, getattr(self, field.name))
        rising = 'lost_score', 'uncertain_score', 'tracking_score'
        for low, high in zip(rising, rising[1:]):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f'{low} must not exceed {high}, got {getattr(self, low)} and {getattr(self, high)}')

    def replace(self, **changes) -> 'TrackerConfig':
        """A checked copy with some values changed."""
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> 'TrackerConfig':
        """Build from a parsed YAML mapping; an unknown name raises ValueError."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            near = difflib.get_close_matches(unknown[0], known, 1)
            raise ValueError(f'unknown parameter {unknown[0]!r}: '
                             + (f'did you mean {near[0]}?' if near else '`cract params` prints those that there are'))
        return cls(**values)


def field_type(field: dataclasses.Field) -> type:
    """`float`, `int` or `str`."""
    return type(field.default)


def check_value(field: dataclasses.Field, value) -> None:
    """Raise ValueError in one sentence unless `value` fits the field's type, range and choices."""
    kind, meta = field_type(field), field.metadata
    fits = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
    if not fits:
        raise ValueError(f'{field.name} must be of type {kind.__name__}, got {value!r}')
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f'{field.name} must be finite, got {value!r}')
    if meta['choices'] and value not in meta['choices']:
        raise ValueError(f'{field.name} must be one of {", ".join(meta["choices"])}, got {value!r}')
    if meta['minimum'] is not None and not meta['minimum'] <= value <= meta['maximum']:
        raise ValueError(
            f'{field.name} must be between {meta["minimum"]} and {meta["maximum"]}, got {value!r}')
