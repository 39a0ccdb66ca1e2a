"""Lets the official VOT toolkit drive our tracker or a peer over its protocol TraX: `python -m` this module.

In the toolkit's workspace, `trackers.ini`:

    [cract]
    label = CRACT
    protocol = trax
    command = python -m cract_core.evaluation.vot_adapter

The package `trax`, which this module needs, comes with `vot-toolkit` or alone as `vot-trax`. (Use a toolkit below 0.8:
0.9 refuses single-object trackers in the reset-based experiment.) Options behind the command: `--tracker`, `--peers`
and the parameters of our tracker, as in `cract eval`. A region that comes as a polygon starts the tracker with the
upright box of its centre and area, as in our own reset-based experiment.
"""
from __future__ import annotations

import sys

import numpy as np

from ..video import read_image
from .benchmarks import polygon_to_box
from .trackers import parse_adapter


def main(argv: list[str] | None = None) -> int:
    """Serve until the toolkit ends the session; exit status 2 with one sentence on stderr for wrong input."""
    try:
        try:
            import trax
        except ImportError as error:
            raise ValueError('the VOT toolkit speaks TraX: pip install "cract_ros[vot]"') from error
        name, tracker = parse_adapter(sys.argv[1:] if argv is None else argv)
    except (ValueError, OSError) as error:
        print(f'{error}', file=sys.stderr)
        return 2
    with trax.Server([trax.Region.RECTANGLE, trax.Region.POLYGON], [trax.Image.PATH], tracker_name=name) as server:
        serve(server, tracker)
    return 0


def serve(server, tracker) -> None:
    """Answer the requests of `server`, a `trax.Server`, with boxes and scores until one of them is to quit."""
    import trax
    while True:
        request = server.wait()
        if request.type == trax.TraxStatus.QUIT:
            return
        frame = read_image(request.image['color'].path())
        if request.type == trax.TraxStatus.INITIALIZE:
            box, score = region_box(request.objects[0][0]), 1.0
            tracker.init(frame, box)
        else:
            estimate = tracker.update(frame)
            box, score = estimate.box, estimate.score
        server.status([(trax.Rectangle.create(*(float(value) for value in box)), {'confidence': score})])


def region_box(region) -> np.ndarray:
    """A `trax.Rectangle` or `trax.Polygon` as x, y, w, h."""
    import trax
    if isinstance(region, trax.Rectangle):
        return np.array(region.bounds())
    return polygon_to_box(np.array([region.get(i) for i in range(region.size())]))


if __name__ == '__main__':
    sys.exit(main())
