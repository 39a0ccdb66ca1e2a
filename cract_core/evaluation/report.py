"""One self-contained HTML page of what `cract eval` measured: tables, plots, worst frames, the machine."""
from __future__ import annotations

import base64
import functools
import io
import itertools
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import cv2
import jinja2
import numpy as np
from matplotlib.figure import Figure

from ..files import write_text
from ..video import draw_estimate
from . import absence, camera, metrics, runner
from .protocols import Measured, trusts_of
from .sequences import Sequence

COLORS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#7f7f7f')  # Okabe and Ito, told apart by all
TRUTH_COLOR = '#ffffff'
PIXELS = np.arange(51)          # of the precision plot
PICTURES, PICTURE_WIDTH = 8, 640
FEWEST = 6              # sequences of an interval: the range of five holds a true median with 1 - 2 / 2^5 = 94 % only
ZOOM = 4.0              # side of what a picture shows enlarged, in sides of the target; at least so many pixels:
ZOOM_LEAST = 32
ZOOM_SIDE = 200         # of the enlarged part, pixels of the picture
LABELS = dict(auc='success AUC', precision='precision 20 px', norm_precision='normalised precision 0.2', ao='AO',
              sr50='SR 0.50', sr75='SR 0.75', off='off target', false_loss='falsely lost', frozen='frozen')
STAGE_LABELS = dict(last='last box', anchors='best anchor', proposals='best of N', top='top ranked', refined='after R',
                    chosen='chosen', by_identifier='by ν+', by_discriminator='by τ', by_coarse='by c', gain='gain of R',
                    proposals_50='of N', refined_50='after R', chosen_50='chosen')
TRUST_LABELS = dict(auroc='AUROC', ece='ECE', absent_as_lost='absent as lost', false_loss='false loss',
                    frames_to_loss='frames to loss', reacquired_15='returns in 15')
CAMERA_LABELS = dict(iou='IoU', last_fifth='last fifth', after_15='15 frames after', lost='right, called lost')
ATTRIBUTES = {  # from the annotation alone, where the benchmark names none; thresholds of the OTB paper (Wu et al. 2015)
    'fast motion': 'the centre moves over 20 px between two frames',
    'scale change': 'the area leaves 1/4 to 4 times that of the first frame',
    'aspect change': 'the aspect leaves 1/2 to 2 times that of the first frame',
    'small target': 'fewer than 400 pixels in some frame',
    'leaves the view': 'absent in some frame',
}


@dataclass(frozen=True)
class Picture:
    """A frame with boxes: JPEG as a data URI, and a sentence on it."""

    uri: str
    text: str


def write_report(folder, measured: Measured, figures: dict) -> Path:
    """Write `folder/report.html` and return its path.

    figures: the content of the JSON file, the first tracker at the top and the others under `peers`.
    """
    blocks = {one['tracker']: one for one in (figures, *figures['peers'])}
    colors = dict(zip(blocks, itertools.cycle(COLORS)))
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True,
                                     undefined=jinja2.StrictUndefined)
    environment.filters.update(number=number, interval=functools.partial(
        interval, count=min(map(len, measured.sequences.values()))))
    template = environment.from_string((resources.files(__package__) / 'report.html.jinja').read_text())
    plots, pictures = {}, {}
    accuracy = [key for key in LABELS if figures.get('mean', {}).get(key) is not None]
    if accuracy:
        plots['accuracy'] = svg(_accuracy_figure(measured, colors))
        pictures['ope'] = worst_frames(measured, figures, colors)
    if 'ope' in measured.done:
        plots['latency'] = svg(_latency_figure(measured, colors))
    if 'absence' in measured.done:
        plots['trust'] = svg(_trust_figure(measured, colors))
        pictures['absence'] = believed_absences(measured, colors)
    if 'camera' in measured.done:
        plots['camera'] = svg(_camera_figure(measured, colors))
    best = {sequence: max(block['sequences'][sequence]['auc'] for block in blocks.values())
            for sequence in (figures['sequences'] if accuracy else ())}
    path = Path(folder) / 'report.html'
    write_text(path, template.render(
        figures=figures, blocks=blocks, colors=colors, plots=plots, pictures=pictures, labels=LABELS,
        accuracy=accuracy, best=best, trust_labels=TRUST_LABELS, stage_labels=STAGE_LABELS,
        camera_labels=CAMERA_LABELS, cases=camera.CASES,
        attributes=attribute_table(measured.sequences['ope'], blocks) if accuracy else [],
        machines=sorted({done.machine for runs in measured.done.values() for some in runs.values() for done in some}),
        definitions=ATTRIBUTES, bins=absence.ECE_BINS, busy=runner.BUSY, fewest=FEWEST,
        count=min(map(len, measured.sequences.values()))))
    return path


def number(value, digits: int = 3) -> str:
    """A figure in a table; a dash where there is none."""
    return '–' if value is None else f'{value:.{digits}f}' if isinstance(value, float) else str(value)


def interval(value, digits: int = 3, *, count: int) -> str:
    """A confidence interval over `count` sequences in a table; nothing where they are too few for one, or all alike."""
    return '' if value is None or count < FEWEST or value[0] == value[1] else f'{value[0]:.{digits}f} to {value[1]:.{digits}f}'


def attributes_of(sequence: Sequence) -> tuple[str, ...]:
    """The benchmark's attributes of a sequence, or where it has none, those of `ATTRIBUTES` that hold."""
    if sequence.attributes:
        return sequence.attributes
    truth = sequence.truth
    first, seen = truth[0], truth[~np.isnan(truth).any(axis=1)]
    with np.errstate(invalid='ignore'):
        steps = np.linalg.norm(np.diff(truth[:, :2] + truth[:, 2:] / 2, axis=0), axis=1)
        area = seen[:, 2] * seen[:, 3] / (first[2] * first[3])
        aspect = seen[:, 2] / seen[:, 3] / (first[2] / first[3])
        holds = ((steps > 20).any(), ((area < 1 / 4) | (area > 4)).any(), ((aspect < 1 / 2) | (aspect > 2)).any(),
                 (seen[:, 2] * seen[:, 3] < 400).any(), len(seen) < len(truth))
    return tuple(name for name, true in zip(ATTRIBUTES, holds) if true)


def attribute_table(sequences: list[Sequence], blocks: dict[str, dict]) -> list[tuple[str, int, dict[str, float]]]:
    """Per attribute its name, the number of its sequences and each tracker's mean success AUC over them."""
    groups: dict[str, list[str]] = {}
    for sequence in sequences:
        for attribute in attributes_of(sequence):
            groups.setdefault(attribute, []).append(sequence.name)
    return [(attribute, len(names), {
        tracker: float(np.mean([block['sequences'][name]['auc'] for name in names]))
        for tracker, block in blocks.items()}) for attribute, names in sorted(groups.items())]


def worst_frames(measured: Measured, figures: dict, colors: dict[str, str]) -> list[Picture]:
    """From the sequences that our tracker does worst on, the middle of its longest failure, with all boxes."""
    sequences, subject = measured.sequences['ope'], figures['tracker']
    ranked = sorted((figures['sequences'][sequence.name]['auc'], row) for row, sequence in enumerate(sequences))
    pictures = []
    for auc, row in ranked[:PICTURES]:
        frame = _middle_of_longest(_overlaps(measured, 'ope', subject, row))
        pictures.append(_picture(measured, 'ope', row, frame, colors,
                                 f'{sequences[row].name}, frame {frame + 1}: AUC {auc:.2f} of {subject}'))
    return pictures


def believed_absences(measured: Measured, colors: dict[str, str]) -> list[Picture]:
    """Frames without the target in which our tracker was most sure to see it, one a sequence."""
    subject = next(iter(measured.done['absence']))
    ranked = []
    for row, (sequence, done) in enumerate(zip(measured.sequences['absence'], measured.done['absence'][subject])):
        lost = np.array([state == 'lost' for state in done.run.states])
        scores = np.where(sequence.absent & ~lost, done.run.scores, -1.0)
        if scores.max() >= 0:
            ranked.append((-scores.max(), row, int(scores.argmax())))
    return [_picture(measured, 'absence', row, frame, colors,
                     f'{measured.sequences["absence"][row].name}, frame {frame + 1}, target absent: '
                     f'score {-score:.2f} of {subject}') for score, row, frame in sorted(ranked)[:PICTURES]]


def _overlaps(measured: Measured, protocol: str, tracker: str, row: int) -> np.ndarray:
    return metrics.overlaps(measured.done[protocol][tracker][row].run.boxes, measured.sequences[protocol][row].truth)


def _middle_of_longest(overlap: np.ndarray, below: float = 0.2) -> int:
    """The middle of the longest run of frames with less overlap; the worst frame if there is none."""
    runs, start = [], 0
    failing = np.nan_to_num(overlap, nan=1.0) < below
    for value, group in itertools.groupby(failing):
        length = len(list(group))
        if value:
            runs.append((length, start + length // 2))
        start += length
    return max(runs)[1] if runs else int(np.nanargmin(overlap))


def _picture(measured: Measured, protocol: str, row: int, index: int, colors: dict[str, str], text: str) -> Picture:
    sequence = measured.sequences[protocol][row]
    whole = next(itertools.islice(sequence.frames(), index, None))
    scale, frame = PICTURE_WIDTH / whole.shape[1], whole
    frame = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    boxes = [(tracker, some[row].run.boxes[index], some[row].run.states[index])
             for tracker, some in measured.done[protocol].items()]
    drawn = [(box, tracker + (' lost' if state == 'lost' else ''), _bgr(colors[tracker]))
             for tracker, box, state in reversed(boxes)]  # ours on top
    target = boxes[0][1]
    if not np.isnan(sequence.truth[index]).any():
        target = sequence.truth[index]
        drawn.insert(0, (target, 'truth', _bgr(TRUTH_COLOR)))
    for box, name, color in drawn:
        draw_estimate(frame, box * scale, name, color)
    _zoom(frame, whole, target, [(box, color) for box, _, color in drawn], scale)
    written, jpeg = cv2.imencode('.jpg', frame, (cv2.IMWRITE_JPEG_QUALITY, 82))
    if not written:
        raise OSError(f'OpenCV cannot encode a JPEG of {frame.shape[1]} x {frame.shape[0]} pixels')
    return Picture(_uri('image/jpeg', jpeg.tobytes()), text)


def _zoom(picture: np.ndarray, frame: np.ndarray, target: np.ndarray, boxes: list[tuple], scale: float) -> None:
    """Put what `frame` shows around a small target, enlarged and with the boxes, into the corner of `picture` away from
    it. A target that is large enough to be seen in the picture is left as it is."""
    side = max(ZOOM * float(max(target[2:])), ZOOM_LEAST)
    height, width = picture.shape[:2]
    if 2 * side * scale > ZOOM_SIDE or min(height, width) < 2 * ZOOM_SIDE // 3:
        return
    size = min(ZOOM_SIDE, min(height, width) // 2)
    enlarge, (x, y) = size / side, target[:2] + target[2:] / 2 - side / 2
    part = cv2.warpAffine(frame, np.array([[enlarge, 0, -x * enlarge], [0, enlarge, -y * enlarge]]), (size, size),
                          flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=(60, 60, 60))
    for box, color in boxes:
        draw_estimate(part, (*((box[:2] - (x, y)) * enlarge), *(box[2:] * enlarge)), color=color)
    part[[0, -1]] = part[:, [0, -1]] = 255
    centre = (target[:2] + target[2:] / 2) * scale
    left, top = width - size if centre[0] < width / 2 else 0, height - size if centre[1] < height / 2 else 0
    picture[top:top + size, left:left + size] = part


def _bgr(color: str) -> tuple[int, int, int]:
    return tuple(int(color[i:i + 2], 16) for i in (5, 3, 1))


def svg(figure: Figure) -> str:
    """The figure as a data URI of SVG, the same for the same figure."""
    import matplotlib
    buffer = io.BytesIO()
    with matplotlib.rc_context({'svg.hashsalt': 'cract', 'svg.fonttype': 'path'}):
        figure.savefig(buffer, format='svg', metadata={'Date': None})
    return _uri('image/svg+xml', buffer.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f'data:{kind};base64,{base64.b64encode(content).decode()}'


def _axes(figure: Figure, rows: int, columns: int, position: int, **labels):
    axes = figure.add_subplot(rows, columns, position)
    axes.set(**labels)
    axes.grid(alpha=0.25)
    for side in ('top', 'right'):
        axes.spines[side].set_visible(False)
    return axes


def _accuracy_figure(measured: Measured, colors: dict[str, str]) -> Figure:
    figure = Figure(figsize=(10.5, 4.2), layout='constrained')
    success = _axes(figure, 1, 2, 1, title='Success', xlabel='overlap threshold', ylabel='share of frames', ylim=(0, 1),
                    xlim=(0, 1))
    precise = _axes(figure, 1, 2, 2, title='Precision', xlabel='centre error, pixels', ylim=(0, 1), xlim=(0, 50))
    for tracker, some in measured.done['ope'].items():
        curves, near = [], []
        for row, sequence in enumerate(measured.sequences['ope']):
            counts = sequence.absent_counts
            curves.append(metrics.success_curve(_overlaps(measured, 'ope', tracker, row), absent_counts=counts))
            errors = metrics.center_errors(some[row].run.boxes, sequence.truth)
            near.append([metrics.precision(errors, pixels, counts) for pixels in PIXELS])
        curve, near = np.mean(curves, axis=0), np.mean(near, axis=0)
        style = dict(color=colors[tracker], linewidth=2)
        success.plot(metrics.THRESHOLDS, curve, label=f'{tracker}  {curve.mean():.3f}', **style)
        precise.plot(PIXELS, near, label=f'{tracker}  {near[20]:.3f}', **style)
    precise.axvline(20, color='#999999', linewidth=1, linestyle=':')
    success.legend(title='AUC', framealpha=0.8, edgecolor='none')
    precise.legend(title='at 20 px', framealpha=0.8, edgecolor='none')
    return figure


def _latency_figure(measured: Measured, colors: dict[str, str]) -> Figure:
    figure = Figure(figsize=(10.5, 3.6), layout='constrained')
    axes = _axes(figure, 1, 1, 1, title='Latency of an update, without decoding', xlabel='milliseconds',
                 ylabel='share of updates within', xscale='log', ylim=(0, 1))
    for tracker, some in measured.done['ope'].items():
        times = np.sort(np.concatenate([done.run.seconds for done in some])) * 1e3
        axes.plot(times, np.arange(1, len(times) + 1) / len(times), color=colors[tracker], linewidth=2, label=tracker)
    axes.axvline(1e3 / 30, color='#999999', linewidth=1, linestyle=':')
    axes.annotate(' 30 fps', (1e3 / 30, 0.03), color='#777777')
    axes.legend(frameon=False, loc='lower right')
    return figure


def _trust_figure(measured: Measured, colors: dict[str, str]) -> Figure:
    trackers = list(measured.done['absence'])
    figure = Figure(figsize=(10.5, 2.6 + 1.5 * len(trackers)), layout='constrained')
    grid = figure.add_gridspec(len(trackers), 2)
    plot = figure.add_subplot(grid[:3, 0])
    plot.set(title='Reliability', xlabel='score', ylabel='share that is right', xlim=(0, 1), ylim=(0, 1))
    plot.plot((0, 1), (0, 1), color='#999999', linewidth=1, linestyle=':')
    plot.grid(alpha=0.25)
    for row, tracker in enumerate(trackers):
        trusts = trusts_of(measured, tracker)
        scores, correct, gone = (np.concatenate([getattr(one, name) for one in trusts])
                                 for name in ('scores', 'correct', 'gone'))
        table = absence.reliability(scores, correct)
        table = table[table[:, 0] > 0]
        plot.plot(table[:, 1], table[:, 2], color=colors[tracker], linewidth=1.5, label=tracker)
        plot.scatter(table[:, 1], table[:, 2], color=colors[tracker], s=10 + 90 * table[:, 0] / table[:, 0].max())
        bars = figure.add_subplot(grid[row, 1])
        edges = np.linspace(0, 1, 31)
        for mask, text, color in ((correct, 'on the target', colors[tracker]), (gone, 'target absent', '#555555')):
            if mask.any():
                bars.hist(scores[mask], edges, weights=np.full(mask.sum(), 1 / mask.sum()), alpha=0.55, color=color,
                          label=text)
        bars.set(title=f'Scores of {tracker}', xlim=(0, 1))
        bars.set_yticks([])
        bars.legend(frameon=False, fontsize='small')
    plot.legend(frameon=False)
    return figure


def _camera_figure(measured: Measured, colors: dict[str, str]) -> Figure:
    """The mean IoU of every frame, case by case."""
    sequences = measured.sequences['camera']
    cases = [case for case in camera.CASES if any(one.case == case for one in sequences)]
    columns = min(len(cases), 4)
    rows = -(-len(cases) // columns)
    figure = Figure(figsize=(10.5, 0.6 + 1.9 * rows), layout='constrained')
    for place, case in enumerate(cases, 1):
        axes = _axes(figure, rows, columns, place, title=case, ylim=(0, 1))
        for tracker, some in measured.done['camera'].items():
            overlap = np.array([metrics.overlaps(done.run.boxes, one.truth) for one, done in zip(sequences, some)
                                if one.case == case])
            seen = ~np.isnan(overlap)
            with np.errstate(invalid='ignore'):
                axes.plot(np.nansum(overlap, axis=0) / seen.sum(axis=0), color=colors[tracker], linewidth=1.5, label=tracker)
    figure.axes[0].legend(frameon=False, fontsize='small', loc='lower left')
    figure.supylabel('mean IoU')
    figure.supxlabel('frame')
    return figure
