import cv2
import numpy as np
import pytest

from cract_core.crop import (AUGMENTED_VIEWS, SEARCH_SIZE, TEMPLATE_SIZE, Window, augmented_views, context_side,
                             search_window, template_window)


def ramp(width=240, height=200):
    """Pixel (x, y) holds its own continuous centre: channel 0 x + 0.5, channel 1 y + 0.5 (float)."""
    y, x = np.mgrid[:height, :width] + 0.5
    return np.dstack([x, y, 0 * x]).astype(np.float32)


@pytest.mark.parametrize('center, side', [((120.0, 100.0), 64.5), ((101.3, 77.8), 90.0), ((60.25, 140.75), 33.0)])
def test_a_crop_of_a_ramp_has_exact_coordinates(center, side):
    window = Window(center, side, 129)
    crop = window.cut(ramp(), (0, 0, 0))
    step = side / 129
    line = np.arange(129) + 0.5
    # cv2 interpolates with weights of 1/32 pixel
    np.testing.assert_allclose(crop[:, :, 0], np.tile(center[0] - side / 2 + line * step, (129, 1)), atol=0.02)
    np.testing.assert_allclose(crop[:, :, 1].T, np.tile(center[1] - side / 2 + line * step, (129, 1)), atol=0.02)


def test_the_centre_of_the_window_is_the_middle_of_the_middle_pixel():
    crop = Window((120.5, 100.5), 129.0, 129).cut(ramp(), (0, 0, 0))
    assert crop[64, 64, 0] == pytest.approx(120.5) and crop[64, 64, 1] == pytest.approx(100.5)


def test_outside_the_frame_is_the_border_colour():
    crop = Window((0.0, 0.0), 100.0, 129).cut(np.zeros((50, 50, 3), np.uint8), (10, 20, 30))
    assert crop[0, 0].tolist() == [10, 20, 30] and crop[100, 100].tolist() == [0, 0, 0]


def test_boxes_go_to_the_crop_and_back():
    window = search_window((77.7, 33.3), 40, 20)
    box = np.array([60.0, 20.0, 90.0, 50.0])
    np.testing.assert_allclose(window.to_frame(window.to_crop(box)), box)
    np.testing.assert_allclose(window.to_crop([77.7, 33.3, 77.7, 33.3]), [SEARCH_SIZE / 2] * 4)


def test_both_windows_show_the_target_at_one_scale():
    assert template_window((0, 0), 30, 50).scale == pytest.approx(search_window((0, 0), 30, 50).scale)
    assert template_window((0, 0), 50, 50).side == pytest.approx(100) and TEMPLATE_SIZE == 129
    assert context_side(30, 50) == pytest.approx(((30 + 40) * (50 + 40)) ** 0.5)


def test_augmented_views_show_the_target_in_their_box():
    """Red pixels of a filled ellipse, found without the geometry code, fill the boxes."""
    crop = np.zeros((257, 257, 3), np.uint8)
    cv2.ellipse(crop, (110, 140), (40, 15), 0, 0, 360, (0, 0, 255), -1)
    views = augmented_views(crop, np.array([70.0, 125, 151, 156]))
    assert len(views) == AUGMENTED_VIEWS
    for picture, box in views:
        x, y, w, h = cv2.boundingRect((picture[:, :, 2] > 127).astype(np.uint8))
        found = np.array([x, y, x + w, y + h])
        np.testing.assert_allclose((box[:2] + box[2:]) / 2, (found[:2] + found[2:]) / 2, atol=1)
        assert (box[2:] - box[:2] >= found[2:] - found[:2] - 2).all()  # an ellipse is the smaller bound
