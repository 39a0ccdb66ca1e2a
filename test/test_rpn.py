import pytest
import torch

from cract_core.boxes import to_center
from cract_core.rpn import SiameseRpn, depthwise_correlation, make_anchors


def test_correlation_matches_brute_force():
    torch.manual_seed(0)
    search, kernel = torch.randn(2, 3, 9, 8), torch.randn(2, 3, 5, 5)
    result = depthwise_correlation(search, kernel)
    assert result.shape == (2, 3, 5, 4)
    for b in range(2):
        for c in range(3):
            for y in range(5):
                for x in range(4):
                    expected = (search[b, c, y:y + 5, x:x + 5] * kernel[b, c]).sum()
                    assert float(result[b, c, y, x]) == pytest.approx(float(expected), abs=1e-5)


def test_anchors_are_centred_and_have_their_ratio():
    anchors = to_center(make_anchors()).view(5, 27, 27, 4)
    torch.testing.assert_close(anchors[:, 13, 13, :2], torch.full((5, 2), 128.5))
    torch.testing.assert_close(anchors[0, 0, 1, :2], torch.tensor([32.5, 24.5]))
    torch.testing.assert_close(anchors[:, 0, 0, 3] / anchors[:, 0, 0, 2], torch.tensor([0.33, 0.5, 1, 2, 3]))
    torch.testing.assert_close(anchors[:, 0, 0, 2:].prod(-1), torch.full((5,), 4096.0))


def test_an_impulse_in_the_map_answers_in_its_own_cell():
    """With kernels of one centre cell, the response peaks at the anchor over the impulse."""
    search = torch.zeros(1, 1, 33, 33)
    search[0, 0, 10, 20] = 1  # centred at x = 160.5, y = 80.5
    inner = search[..., 1:-1, 1:-1]  # a 3x3 convolution without padding loses one cell a side
    kernel = torch.zeros(1, 1, 5, 5)
    kernel[0, 0, 2, 2] = 1
    index = int(depthwise_correlation(inner, kernel).flatten().argmax())
    assert to_center(make_anchors())[index, :2].tolist() == [160.5, 80.5]


def test_outputs_are_ordered_like_the_anchors():
    torch.manual_seed(0)
    rpn = SiameseRpn(8).eval()
    phi, kernels = torch.randn(2, 8, 33, 33), rpn.kernels(torch.randn(2, 8, 17, 17))
    logits, offsets = rpn(phi, kernels)
    assert logits.shape == (2, 3645, 2) and offsets.shape == (2, 3645, 4)
    raw = rpn.classify(phi, kernels.classify).view(2, 5, 2, 27, 27)
    raw_boxes = rpn.regress(phi, kernels.regress).view(2, 5, 4, 27, 27)
    index = (3 * 27 + 11) * 27 + 5
    torch.testing.assert_close(logits[1, index], raw[1, 3, :, 11, 5])
    torch.testing.assert_close(offsets[1, index], raw_boxes[1, 3, :, 11, 5])
