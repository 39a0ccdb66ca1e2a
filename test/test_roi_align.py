import pytest
import torch

from cract_core.roi_align import pyramid, pyramid_roi_align, roi_align


def ramp_map(cells=33):
    """A map whose two channels hold the x and y at which each stride-8 cell is centred."""
    line = torch.arange(cells, dtype=torch.float64) * 8 + 0.5
    y, x = torch.meshgrid(line, line, indexing='ij')
    return torch.stack([x, y])[None]


def test_roi_align_of_a_ramp_is_exact():
    box = torch.tensor([[40.3, 60.9, 131.7, 200.2]], dtype=torch.float64)
    pooled = roi_align(ramp_map(), box[None])[0, 0]
    bins = (torch.arange(6).double() + 0.5) / 6
    torch.testing.assert_close(pooled[0, :, 0], 40.3 + bins * (131.7 - 40.3))
    torch.testing.assert_close(pooled[:, 0, 1], 60.9 + bins * (200.2 - 60.9))


def test_roi_align_matches_a_direct_loop():
    torch.manual_seed(0)
    features = torch.randn(1, 3, 17, 17, dtype=torch.float64)
    box = torch.tensor([5.0, 20.0, 77.0, 140.0], dtype=torch.float64)  # reaches beyond the last cell
    pooled = roi_align(features, box[None, None])[0, 0]

    def value(x, y, channel):
        column, row = (min(max((v - 0.5) / 8, 0), 16) for v in (x, y))
        j, i = min(int(column), 15), min(int(row), 15)
        a, b = column - j, row - i
        f = features[0, channel]
        return ((1 - a) * (1 - b) * f[i, j] + a * (1 - b) * f[i, j + 1]
                + (1 - a) * b * f[i + 1, j] + a * b * f[i + 1, j + 1])

    for i in range(6):
        for j in range(6):
            for channel in range(3):
                samples = [value(5 + 72 * (j + (s + 0.5) / 2) / 6, 20 + 120 * (i + (t + 0.5) / 2) / 6, channel)
                           for s in range(2) for t in range(2)]
                assert float(pooled[i, j, channel]) == pytest.approx(float(sum(samples) / 4), abs=1e-12)


def test_averages_of_the_fine_level_are_the_coarse_levels():
    """The identity that lets one RoIAlign pay for the pyramid."""
    torch.manual_seed(0)
    features = torch.randn(1, 4, 33, 33, dtype=torch.float64)
    boxes = torch.tensor([[[30.0, 44.0, 150.0, 99.0], [100.0, 10.0, 140.0, 250.0]]], dtype=torch.float64)
    levels = pyramid(roi_align(features, boxes)[0]).split(4, -1)
    middle = roi_align(features, boxes, bins=3, samples=4)[0].repeat_interleave(2, 1).repeat_interleave(2, 2)
    whole = roi_align(features, boxes, bins=1, samples=12)[0].expand(-1, 6, 6, -1)
    torch.testing.assert_close(levels[1], middle, atol=1e-14, rtol=0)
    torch.testing.assert_close(levels[2], whole, atol=1e-14, rtol=0)


def test_gradient_reaches_the_box():
    boxes = torch.tensor([[[41.3, 38.9, 100.7, 99.1]]], dtype=torch.float64, requires_grad=True)
    features = torch.randn(1, 2, 33, 33, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda b: pyramid_roi_align(features, b), boxes)


def test_shapes_and_batches():
    features = torch.randn(3, 5, 33, 33)
    boxes = torch.rand(3, 7, 4) * 50 + torch.tensor([0.0, 0, 60, 60])
    together = pyramid_roi_align(features, boxes)
    assert together.shape == (21, 15, 6, 6)
    torch.testing.assert_close(together[7:14], pyramid_roi_align(features[1:2], boxes[1:2]))
