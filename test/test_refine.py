import torch
import torch.nn.functional as F

from cract_core.refine import OFFSET_SCALE, RelationHead, apply_offsets


def test_split_convolution_equals_the_convolution_of_the_concatenation():
    torch.manual_seed(0)
    head = RelationHead(6, 4, width=5, hidden=7)
    f, f_init = torch.randn(3, 6, 6, 6), torch.randn(1, 6, 6, 6)
    joint = F.relu(head.conv(torch.cat([f, f_init.expand(3, -1, -1, -1)], 1))).flatten(1)
    expected = head.fc3(F.relu(head.fc2(F.relu(head.fc1(joint)))))
    torch.testing.assert_close(head(f, head.template_term(f_init)), expected)


def test_offsets_are_scaled():
    box = torch.tensor([0.0, 0, 10, 10])
    moved = apply_offsets(box, torch.tensor([1.0, 0, 0, 0]))
    torch.testing.assert_close(moved, torch.tensor([10 * OFFSET_SCALE[0], 0, 10 + 10 * OFFSET_SCALE[0], 10]))
