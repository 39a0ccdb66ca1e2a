"""What an operator's dashboard shows of the node: one status on /diagnostics, once a second."""
from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from cract_ros.monitor import Counts

TOPIC, PERIOD = '/diagnostics', 1.0  # seconds
TASK = 'tracking'
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


PACKAGES = {'cv2': 'opencv-contrib-python-headless', 'yaml': 'PyYAML'}  # module -> what to install, where they differ


def explain(error: Exception) -> str:
    """An error in one sentence, with the remedy where a Python package is missing."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        module = error.name.partition('.')[0]
        return f'the Python package {module} is missing: pip install {PACKAGES.get(module, module)}'
    sentence = ' '.join(str(error).split())
    return sentence if isinstance(error, (OSError, ValueError)) and sentence else f'{type(error).__name__}: {sentence}'


@dataclass(frozen=True)
class Facts:
    """What the status is made from."""
    lifecycle: str  # label of the node's state
    autostart: bool = False  # whether it should have configured itself
    problem: str = ''  # in one sentence, why it cannot work; empty if it can
    device: str = ''  # where the networks run
    topic: str = ''  # of the images
    publishers: int = 0  # of that topic
    silence: float = 0.0  # seconds without an image
    timeout: float = 0.0  # of that silence
    target: str = ''  # state of the target
    target_id: str = ''
    kept: int = 0  # images in the history
    total: Counts = field(default_factory=Counts)
    period: Counts = field(default_factory=Counts)
    seconds: float = PERIOD  # of the period


def status(node: str, facts: Facts) -> DiagnosticStatus:
    """The worst that can be said, and all figures, named as diagnostic_updater names them. node: its full name."""
    level, message = _judge(facts)
    period, seconds = facts.period, max(facts.seconds, 1e-9)
    ages = np.array(period.ages or [np.nan])
    values = {
        'lifecycle': facts.lifecycle, 'device': facts.device, 'image topic': facts.topic, 'target': facts.target,
        'target id': facts.target_id, 'Events in window': period.received,
        'Events since startup': facts.total.received, 'Duration of window (s)': f'{seconds:.3f}',
        'Actual frequency (Hz)': f'{period.received / seconds:.3f}',
        'images answered [Hz]': f'{period.answered / seconds:.1f}',
        'age of an answered image, mean [ms]': f'{1e3 * ages.mean():.1f}',
        'age of an answered image, max [ms]': f'{1e3 * ages.max():.1f}',
        'busy [%]': f'{100 * period.busy / seconds:.0f}',
        'images answered': facts.total.answered, 'images lost on the way': facts.total.missed,
        'images that could not be read': facts.total.refused,
        'images dropped for newer ones': facts.total.received - facts.total.answered - facts.total.refused,
        'images kept': facts.kept, 'candidates left out': facts.total.left_out}
    return DiagnosticStatus(level=level, name=f'{node.lstrip("/")}: {TASK}', message=message, hardware_id=facts.topic,
                            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()])


def _judge(facts: Facts) -> tuple[bytes, str]:
    if facts.problem:
        return ERROR, facts.problem
    if facts.lifecycle == 'unconfigured' and facts.autostart:
        return ERROR, 'not configured'
    if facts.lifecycle != 'active':
        return OK, facts.lifecycle
    if facts.silence > facts.timeout:
        return ERROR, f'no image on {facts.topic} for {facts.silence:.1f} s; ' + (
            'nobody publishes it' if not facts.publishers else f'{facts.publishers} publishers')
    if facts.period.refused:
        return WARN, f'{facts.period.refused} images could not be read'
    return (WARN if facts.target == 'lost' else OK), facts.target
