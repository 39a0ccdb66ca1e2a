import pytest
import torch
import torch.nn.functional as F

from cract_core.backbone import Backbone, Fusion, conv_norm, fold
from cract_core.crop import CELL_CENTER, STRIDE


@pytest.mark.parametrize('size, cells', [(129, 17), (257, 33)])
def test_grid_sizes(size, cells):
    phi3, phi4 = Backbone()(torch.rand(1, 3, size, size) * 255)
    assert phi3.shape == (1, 128, cells, cells) and phi4.shape == (1, 256, cells // 2 + 1, cells // 2 + 1)
    assert Fusion(32)(phi3, phi4).shape == (1, 32, cells, cells)


@pytest.mark.parametrize('level, stride', [(0, 8), (1, 16)])
@pytest.mark.parametrize('cell', [3, 4])
def test_the_field_of_a_cell_is_centred_on_it(level, stride, cell):
    """Gradients of one cell with positive weights and no bias are symmetric around 8i + 0.5 (or 16i + 0.5)."""
    torch.manual_seed(0)
    net = Backbone().double()
    for parameter in net.parameters():
        parameter.data = torch.ones_like(parameter) / parameter[0].numel() if parameter.dim() == 4 else \
            torch.zeros_like(parameter)
    net.mean.zero_()
    image = torch.ones(1, 3, 257, 257, dtype=torch.float64, requires_grad=True)
    # max pooling has no single centre: an average in its place shows the geometry of the padding
    x = F.avg_pool2d(F.relu(net.conv1(image / net.std)), 3, 2, 1)
    phi3 = net.layer2(net.layer1(x))
    features = (phi3, net.layer3(phi3))[level]
    features[0, :, 8, 8 + cell - 3].sum().backward()
    weight = image.grad[0].sum(0)
    column = (weight.sum(0) * (torch.arange(257) + 0.5)).sum() / weight.sum()
    assert float(column) == pytest.approx(stride * (8 + cell - 3) + CELL_CENTER, abs=1e-6)
    assert STRIDE == 8


def test_fold_keeps_the_output():
    torch.manual_seed(1)
    block = conv_norm(4, 6, 3)
    x = torch.randn(5, 4, 9, 9)
    for _ in range(3):
        block(x)
    block.norm.weight.data.uniform_(0.5, 2)
    block.norm.bias.data.normal_()
    block.eval()
    expected = block(x)
    fold(block)
    torch.testing.assert_close(block(x), expected)
    fold(block)  # a second time changes nothing
    torch.testing.assert_close(block(x), expected)
