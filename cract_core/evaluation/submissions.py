"""Raw results in the form in which each benchmark takes them, for its own toolkit or its server.

`text`: `<tracker>/<sequence>.txt`, one line x,y,w,h a frame (OTB-2015 counting pixels from 1). `got10k`:
`<tracker>/<sequence>/{<sequence>_001.txt, <sequence>_time.txt}`. `vot`:
`<tracker>/baseline/<sequence>/{<sequence>_001.txt, <sequence>_001_time.value}`. Where results are handed in as an
archive (TrackingNet test, GOT-10k test) `<tracker>.zip` holds what is in `<tracker>/`.
"""
from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from ..files import written
from .benchmarks import Benchmark
from .runner import Run
from .vot import START, ResetRun, write_trajectory


def write_result(folder: Path, benchmark: Benchmark, tracker: str, name: str, run: Run | ResetRun) -> Path:
    """Write the run of `tracker` on the sequence `name` below `folder`; returns the file of the boxes."""
    folder, stem = Path(folder) / tracker, Path(name).name
    if benchmark.form == 'vot':
        path = folder / 'baseline' / name / f'{stem}_001.txt'
        write_trajectory(path, run.trajectory)
        with written(path.with_name(f'{stem}_001_time.value')) as part:
            np.savetxt(part, _reset_times(run), fmt='%.6f')
        return path
    path = folder / f'{name}.txt'
    if benchmark.form == 'got10k':
        path = folder / name / f'{stem}_001.txt'
    path.parent.mkdir(parents=True, exist_ok=True)
    boxes = run.boxes + (benchmark.origin, benchmark.origin, 0, 0)
    with written(path) as part:
        np.savetxt(part, boxes, fmt='%.4f', delimiter=',')
    if benchmark.form == 'got10k':
        with written(path.with_name(f'{stem}_time.txt')) as part:
            np.savetxt(part, [run.init_seconds, *run.seconds], fmt='%.8f')
    return path


def write_archive(folder: Path, tracker: str) -> Path:
    """Put what `write_result` wrote for `tracker` into `folder/<tracker>.zip`, names relative to the tracker's folder.
    """
    source, path = Path(folder) / tracker, Path(folder) / f'{tracker}.zip'
    with written(path) as part, zipfile.ZipFile(part, 'w', zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(source.rglob('*.txt')):
            archive.write(file, file.relative_to(source))
    return path


def _reset_times(run: ResetRun) -> np.ndarray:
    """Seconds per frame `(N,)`, 0 in skipped frames."""
    inits, updates = iter(run.init_seconds), iter(run.seconds)
    times = []
    for entry, score in zip(run.trajectory, run.scores):
        answered = not np.isnan(score)
        times.append(next(updates) if answered else next(inits) if np.ndim(entry) == 0 and entry == START else 0.0)
    return np.array(times)
