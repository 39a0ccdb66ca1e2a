import numpy as np
import pytest
import torch

from cract_core.boxes import iou
from cract_core.discriminator import (BATCH_NEGATIVES, Discriminator, FullyConnected, Projection, SampleMemory,
                                      conjugate_gradients, draw_samples, sample_weights)
from cract_core.roi_align import pyramid_roi_align


def problem(count=60, dims=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, dims, generator=generator)
    x[:, 0] += x[:, 0].sign()  # a margin between the classes
    y = (x[:, 0] > 0).float()
    weight = torch.rand(count, generator=generator)
    layers = FullyConnected(dims, generator, 'cpu')
    return layers, x, y, weight / weight.sum()


def test_conjugate_gradients_solve_a_dense_system():
    torch.manual_seed(0)
    root = torch.randn(8, 8)
    matrix, right = root @ root.T + torch.eye(8), torch.randn(8)
    solution, = conjugate_gradients(lambda p: (matrix @ p[0],), (right,), 50)
    torch.testing.assert_close(solution, torch.linalg.solve(matrix, right), atol=1e-3, rtol=1e-3)


def test_conjugate_gradients_stop_on_negative_curvature_and_nan():
    right = (torch.ones(3),)
    assert conjugate_gradients(lambda p: (-p[0],), right, 10)[0].tolist() == [0, 0, 0]
    nan = conjugate_gradients(lambda p: (p[0] * float('nan'),), right, 10)[0]
    assert torch.isfinite(nan).all()


def test_gauss_newton_step_matches_the_dense_normal_equations():
    layers, x, y, weight = problem()
    lam = 0.05
    parameters = torch.cat([layers.w.flatten(), layers.v])
    rows = layers.w.numel()

    def outputs(p):  # the same network, written once more
        w, v = p[:rows].view_as(layers.w), p[rows:]
        z = torch.cat([x, torch.ones(len(x), 1)], 1) @ w
        return torch.cat([torch.nn.functional.elu(z), torch.ones(len(x), 1)], 1) @ v

    jacobian = torch.autograd.functional.jacobian(outputs, parameters).double()
    residual = (outputs(parameters) - y).double()
    torch.testing.assert_close(outputs(parameters), layers(x))
    s = weight.double()[:, None]
    normal = jacobian.T @ (s * jacobian) + lam * torch.eye(len(parameters), dtype=torch.float64)
    expected = torch.linalg.solve(normal, -(jacobian.T @ (s[:, 0] * residual) + lam * parameters.double()))
    dw, dv = layers.gauss_newton_step(x, y, weight, lam, 400)
    torch.testing.assert_close(torch.cat([dw.flatten(), dv]).double(), expected, atol=2e-3, rtol=2e-2)


def test_training_separates_and_never_raises_the_loss():
    layers, x, y, weight = problem(200, 20)
    solution = layers.train(x, y, weight, 1e-3, 6, 10)
    assert solution.after < 0.2 * solution.before and solution.accepted >= 3
    assert ((layers(x) > 0.5) == (y > 0.5)).float().mean() > 0.95


def test_training_on_nan_keeps_the_old_weights():
    layers, x, y, weight = problem()
    w, v = layers.w.clone(), layers.v.clone()
    x[3] = float('nan')
    solution = layers.train(x, y, weight, 1e-3, 3, 10)
    assert solution.accepted == 0
    assert torch.equal(layers.w, w) and torch.equal(layers.v, v)


def test_memory_keeps_the_first_frame_and_the_latest_of_each_kind():
    memory = SampleMemory(long=3, short=2)
    with pytest.raises(RuntimeError):
        memory.gather(False)
    for frame in range(6):
        memory.add(torch.full((2, 1), float(frame)), torch.full((3, 1), float(frame)))
    positive, negative = memory.gather(short_term=False)
    assert sorted(set(positive.flatten().tolist())) == [0, 3, 4, 5]
    assert sorted(set(negative.flatten().tolist())) == [0, 4, 5]
    assert sorted(set(memory.gather(short_term=True)[0].flatten().tolist())) == [0, 4, 5]
    assert len(memory) == 4


def test_positives_and_negatives_weigh_the_same():
    weight = sample_weights(200, 1000, 'cpu')
    assert float(weight[:200].sum()) == pytest.approx(0.5) and float(weight.sum()) == pytest.approx(1)


def test_samples_keep_to_their_thresholds():
    box = np.array([100.0, 110, 150, 150])
    rivals = np.array([[20.0, 20, 70, 60], [104.0, 112, 154, 152]])  # one elsewhere, one on the target
    samples = draw_samples(box, 200, 1000, 0.3, 257, np.random.default_rng(0), distractors=rivals)
    target = torch.from_numpy(box).float()
    assert samples.positive.shape == (200, 4) and samples.negative.shape == (1000, 4)
    assert float(iou(samples.positive, target).min()) > 0.699
    assert float(iou(samples.negative, target).max()) < 0.3
    near_rival = iou(samples.negative, torch.from_numpy(rivals[0]).float()) > 0.6
    assert int(near_rival.sum()) > 200  # hard negatives are many
    again = draw_samples(box, 200, 1000, 0.3, 257, np.random.default_rng(0), distractors=rivals)
    assert torch.equal(samples.negative, again.negative)


def test_projecting_the_map_equals_projecting_the_samples():
    torch.manual_seed(0)
    phi = torch.randn(1, 16, 33, 33)
    boxes = torch.rand(40, 4) * 60 + torch.tensor([20.0, 20, 120, 120])
    features = pyramid_roi_align(phi, boxes[None])
    projection = Projection.fit(features.permute(0, 2, 3, 1), torch.full((40,), 1 / 40))
    of_features = projection.of_features(features)
    torch.testing.assert_close(projection.of_boxes(phi, boxes), of_features, atol=1e-5, rtol=1e-4)
    assert float(of_features.square().sum(1).mean()) == pytest.approx(1, rel=1e-4)


def test_discriminator_tells_the_target_from_its_surroundings_and_learns_hard_negatives():
    torch.manual_seed(0)
    phi = torch.nn.functional.avg_pool2d(torch.randn(1, 16, 37, 37), 5, 1)  # smooth, as real features are
    box = np.array([100.0, 100, 150, 150])
    random = np.random.default_rng(0)
    discriminator = Discriminator(0.001, 10, 100, 20, seed=0)
    solution = discriminator.start([(phi, draw_samples(box, 200, 1000, 0.5, 257, random))], 6)
    assert solution.after < solution.before / 3

    def score(where):
        return float(discriminator.score(pyramid_roi_align(phi, torch.tensor(where)[None, None].float()))[0])

    assert score(box) > 0.7 and score([30.0, 30, 80, 80]) < 0.3
    discriminator.remember(phi, draw_samples(box, 50, 200, 0.3, 257, random))
    assert discriminator.update(short_term=False, steps=1).accepted == 1
    assert score(box) > 0.7
    assert sum(len(n) for n in discriminator.memory.negatives) + 1000 > BATCH_NEGATIVES
