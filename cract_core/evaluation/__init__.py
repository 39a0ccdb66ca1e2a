"""Measuring trackers: readers (`sequences`), figures (`metrics`), other trackers (`peers`) and the run (`runner`).

The walls: a reader yields `Sequence`s and knows no tracker; metrics are functions of arrays; a tracker is anything
with `init(frame, box)` and `update(frame) -> estimate`; the runner joins them and measures time.
"""
