"""Rendered bodies against geometry that is known in closed form, and against OpenCV."""
import cv2
import numpy as np
import pytest
import torch

from cract_core.crop import SEARCH_SIZE, TEMPLATE_SIZE, context_side
from cract_core.training.augment import Augmentation, PairSampler
from cract_core.training.data import CANVAS, ImageBank, ObjectTable
from cract_core.training.solids import Pose, Solids, rotation

SPHERE, CUBOID = 1.0, 3 ** 0.5
FACES = 'left', 'right', 'top', 'bottom', 'front', 'back'
COLOURS = torch.tensor([[255., 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255]])


@pytest.fixture(scope='module')
def bank():
    """One image of six plain fields, 100 x 150 each, and one of smooth noise."""
    pixels = torch.zeros(2, 4, CANVAS, CANVAS, dtype=torch.uint8)
    for face, colour in enumerate(COLOURS):
        y, x = divmod(face, 3)
        pixels[0, :3, 150 * y:150 * y + 150, 100 * x:100 * x + 100] = colour.byte()[:, None, None]
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    pixels[1, :3] = torch.from_numpy(cv2.resize(noise, (CANVAS, CANVAS), interpolation=cv2.INTER_CUBIC)).permute(2, 0, 1)
    box = torch.tensor([[40., 50, 140, 200]])
    points = torch.stack([box[:, [0, 1]], box[:, [2, 1]], box[:, [2, 3]], box[:, [0, 3]]], 1).repeat(1, 6, 1)
    zero, one = torch.zeros(1, dtype=torch.long), torch.ones(1)
    table = ObjectTable(zero + 1, box, zero, zero.byte(), points, points, one, zero, zero)
    return ImageBank(pixels, torch.full((2, 2), 300.0), torch.full((2, 3), 127.0), table)


def body(half, cut, count=1):
    """A body whose faces have the six colours."""
    patch = torch.tensor([[100 * x + 50, 150 * y + 75, 40, 60] for y in range(2) for x in range(3)]).float()
    return Solids(torch.tensor([half]).float().repeat(count, 1), torch.full((count,), cut),
                  torch.zeros(count, 3, dtype=torch.long), patch.repeat(count, 1, 1))


def pose(turn, distance=5.0):
    return Pose(turn, torch.full((len(turn),), distance), torch.zeros(len(turn), 3))


def show(solids, bank, where, size=SEARCH_SIZE, zoom=1.5):
    count = len(solids.half)
    return solids.show(bank, where, torch.full((count, 2), size / 2), torch.full((count,), zoom), size)


def random_turns(count, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    return torch.tensor(np.array([cv2.Rodrigues(2 * vector)[0] for vector in vectors])).float()


def test_rotations_are_those_of_opencv():
    vectors = np.random.default_rng(1).normal(size=(6, 3))
    angle = np.linalg.norm(vectors, axis=1)
    ours = rotation(torch.tensor(vectors / angle[:, None]).float(), torch.tensor(angle).float())
    np.testing.assert_allclose(ours, [cv2.Rodrigues(vector)[0] for vector in vectors], atol=1e-5)


@pytest.mark.parametrize('half', [(0.5, 0.5, 0.5), (0.4, 0.6, 0.05), (0.3, 0.7, 0.5)])
@pytest.mark.parametrize('cut', [SPHERE, 1.25, CUBOID])
def test_the_box_is_that_of_the_visible_pixels_however_the_body_stands(bank, half, cut):
    _, alpha, boxes = show(body(half, cut, 12), bank, pose(random_turns(12)))
    for mask, box in zip(alpha[:, 0] > 0.5, boxes):
        y, x = torch.nonzero(mask, as_tuple=True)
        seen = torch.tensor([x.min(), y.min(), x.max() + 1, y.max() + 1])
        assert (seen - box).abs().max() < 1.6


def test_a_ball_is_as_large_as_perspective_makes_it(bank):
    """A ball of radius r at the distance d covers a disc of radius r d / sqrt(d^2 - r^2) in the plane through its centre."""
    low, high = body((0.5, 0.5, 0.5), SPHERE).extent(pose(random_turns(1), 2.5))
    assert float(high[0, 0]) == pytest.approx(0.5 * 2.5 / (2.5 ** 2 - 0.5 ** 2) ** 0.5, rel=0.02)
    _, alpha, box = show(body((0.5, 0.5, 0.5), SPHERE), bank, pose(random_turns(1), 2.5))
    size = (box[:, 2:] - box[:, :2])[0]
    assert float(alpha.sum()) == pytest.approx(float(size.prod()) * np.pi / 4, rel=0.02)


@pytest.mark.parametrize('name, axis, angle', [
    ('front', 1, 0), ('back', 1, np.pi), ('right', 1, np.pi / 2), ('left', 1, -np.pi / 2),
    ('bottom', 0, -np.pi / 2), ('top', 0, np.pi / 2)])
def test_each_face_is_seen_when_it_is_turned_to_the_camera(bank, name, axis, angle):
    turn = rotation(torch.eye(3)[axis:axis + 1], torch.tensor([float(angle)]))
    layer, alpha, _ = show(body((0.5, 0.5, 0.5), CUBOID), bank, pose(turn))
    middle = slice(SEARCH_SIZE // 2 - 5, SEARCH_SIZE // 2 + 6)
    torch.testing.assert_close(layer[0, :, middle, middle].mean((1, 2)), COLOURS[FACES.index(name)], atol=1, rtol=0)
    assert float(alpha[0, 0, middle, middle].min()) == 1


def test_the_front_of_a_distant_box_is_its_texture_resized(bank):
    solids = body((0.5, 0.7, 0.3), CUBOID)._replace(image=torch.ones(1, 3, dtype=torch.long))
    solids.patch[:, 4] = torch.tensor([150., 160, 50, 70])
    layer, _, box = show(solids, bank, pose(torch.eye(3)[None], 500.0))
    x1, y1, x2, y2 = box[0].round().int().tolist()
    texture = bank.pixels[1, :3, 90:230, 100:200].permute(1, 2, 0).numpy()
    expected = cv2.resize(texture, (x2 - x1, y2 - y1), interpolation=cv2.INTER_AREA).astype(float)
    error = abs(layer[0, :, y1:y2, x1:x2].permute(1, 2, 0).numpy() - expected)[3:-3, 3:-3]
    assert error.mean() < 4 < abs(expected - expected.mean()).mean() / 5


def test_a_face_towards_the_light_is_brighter_and_one_away_from_it_darker(bank):
    grey = ImageBank(torch.full_like(bank.pixels, 100), bank.size, bank.mean, bank.objects)
    turn = rotation(torch.eye(3)[1:2], torch.tensor([0.8]))
    where = pose(turn)._replace(light=torch.tensor([[0.5, 0.0, 0.0]]))
    layer, alpha, _ = show(body((0.5, 0.5, 0.5), CUBOID), grey, where)
    row = layer[0, 0, SEARCH_SIZE // 2][alpha[0, 0, SEARCH_SIZE // 2] == 1]
    assert [float(row.min()), float(row.max())] == pytest.approx(
        [100 * (1 - 0.5 * np.sin(0.8)), 100 * (1 + 0.5 * np.cos(0.8))], abs=0.5)


def test_in_pairs_the_bodies_turn_and_their_boxes_fit_as_in_tracking(bank):
    plain = Augmentation(pasted_box=1, pasted_large=1, solid=1, aspect=0, rotated=0, rotation=0, distractor=0, occluded=0,
                         negative=0, turned=1.4)
    draws = PairSampler(bank, plain, torch.Generator().manual_seed(0))
    target = torch.zeros(16, dtype=torch.long)
    solids, (first, second) = draws._solids(target, torch.zeros(16), torch.zeros(16))
    assert torch.equal(solids.half[:, 1] / solids.half[:, 0], torch.full((16,), 1.5))       # the object's own form
    relative = second.turn @ first.turn.mT
    angle = ((relative.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2).clamp(-1, 1).acos()
    assert 1 < float(angle.max()) <= 1.4 + 1e-3
    pairs = draws.sample(16)
    assert torch.isfinite(pairs.search).all()
    sizes = pairs.template_box[:, 2:] - pairs.template_box[:, :2]
    shown = context_side(*sizes.unbind(-1)) / TEMPLATE_SIZE
    assert float(shown.min()) > 0.94 and float(shown.max()) < 1.06  # a window of the silhouette's own box
