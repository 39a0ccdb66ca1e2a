"""Frames in and out."""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cract_core.video import FrameSource, VideoWriter, draw_estimate, list_images, natural_key


def gradient(level, size=(96, 64)):
    frame = np.empty((size[1], size[0], 3), np.uint8)
    frame[:] = np.linspace(0, 100, size[0])[None, :, None] + level
    return frame


def test_names_are_sorted_as_people_count():
    names = ['frame10.png', 'frame9.png', 'Frame1.png', 'a2b10.png', 'a2b9.png', '007.png', '8.png']
    assert [path.name for path in sorted(map(Path, names), key=natural_key)] == [
        '007.png', '8.png', 'a2b9.png', 'a2b10.png', 'Frame1.png', 'frame9.png', 'frame10.png']


def test_an_image_folder_gives_its_images_in_order_and_nothing_else(tmp_path):
    for i in (1, 2, 10):
        cv2.imwrite(str(tmp_path / f'{i}.png'), gradient(10 * i))
    (tmp_path / 'notes.txt').write_text('not a frame')
    (tmp_path / '._1.png').write_bytes(b'not a frame either')
    source = FrameSource(tmp_path)
    assert source.length == 3 and source.fps == 30
    assert [int(frame[0, 0, 0]) for frame in source] == [10, 20, 100]


def test_grey_images_come_as_three_channels(tmp_path):
    cv2.imwrite(str(tmp_path / '1.png'), gradient(5)[..., 0])
    assert next(iter(FrameSource(tmp_path))).shape == (64, 96, 3)


@pytest.mark.parametrize('size', [(96, 64), (97, 63)])
def test_a_written_video_reads_back(tmp_path, size):
    path = tmp_path / 'clip.mp4'
    levels = [20, 60, 100, 140]
    with VideoWriter(path, fps=12.5) as writer:
        for level in levels:
            writer.write(gradient(level, size))
    with FrameSource(path) as source:
        assert source.fps == pytest.approx(12.5) and source.length == 4
        frames = list(source)
    assert len(frames) == 4
    for frame, level in zip(frames, levels):
        assert frame.shape == (64, 96 + 2 * (size[0] % 2), 3)  # a codec's sizes are even
        frame = frame[:size[1], :size[0]]
        assert np.abs(frame.astype(int) - gradient(level, size)).mean() < 6


def test_a_frame_of_another_size_is_scaled_into_the_video(tmp_path):
    with VideoWriter(tmp_path / 'clip.mp4') as writer:
        writer.write(gradient(50))
        writer.write(gradient(50, (192, 128)))
    frames = list(FrameSource(tmp_path / 'clip.mp4'))
    assert len(frames) == 2 and np.abs(frames[1].astype(int) - frames[0]).mean() < 4


def test_unreadable_sources_are_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match='no source .*nothing.mp4: expected a video file'):
        FrameSource(tmp_path / 'nothing.mp4')
    with pytest.raises(FileNotFoundError, match='no image in'):
        FrameSource(tmp_path)
    with pytest.raises(FileNotFoundError, match='no folder'):
        list_images(tmp_path / 'nothing')
    (tmp_path / 'text.mp4').write_text('this is no video')
    with pytest.raises(ValueError, match='cannot read .*text.mp4 as a video'):
        FrameSource(tmp_path / 'text.mp4')
    with pytest.raises(ValueError, match='cannot open camera 97'):
        FrameSource('97')


def test_a_damaged_frame_inside_a_folder_is_named(tmp_path):
    for i in (1, 3):
        cv2.imwrite(str(tmp_path / f'{i}.png'), gradient(10 * i))
    (tmp_path / '2.png').write_bytes((tmp_path / '1.png').read_bytes()[:20])
    source = FrameSource(tmp_path)
    assert len(list(source)) == 2 and '2 of 3' in source.complaint and '2.png' in source.complaint


def test_a_video_goes_only_where_it_can(tmp_path):
    with pytest.raises(ValueError, match='expected a name ending in .mp4'):
        VideoWriter(tmp_path / 'clip.avi')
    with pytest.raises(FileNotFoundError, match='there is no folder'):
        VideoWriter(tmp_path / 'nowhere' / 'clip.mp4')


def test_the_drawn_box_lies_on_the_box_and_not_inside():
    frame = draw_estimate(np.zeros((240, 320, 3), np.uint8), (100, 80, 60, 40), color=(0, 255, 0))
    for x, y in ((130, 80), (130, 120), (100, 100), (160, 100)):
        assert frame[y, x, 1] == 255
    assert not frame[90:110, 110:150].any() and not frame[:70].any()


@pytest.mark.parametrize('box', [(-50, -40, 30, 20), (300, 230, 100, 100), (1e9, -1e9, 1e9, 5), (0, 0, 320, 240)])
def test_a_label_stays_inside_the_frame(box):
    frame = draw_estimate(np.zeros((240, 320, 3), np.uint8), box, 'tracking 0.93', (200, 80, 40))
    assert (frame == (200, 80, 40)).all(axis=2).sum() > 200
