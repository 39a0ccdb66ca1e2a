"""Solid bodies under real textures: targets that turn out of the plane and show other sides, as no warped cut-out does.

A body is a cuboid whose corners a sphere cuts off: anything from a box to an ellipsoid, thin as a book or as deep as
wide. It is traced ray by ray, so a batch of different bodies is one computation on any device.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..boxes import from_center
from ..crop import TEMPLATE_SIZE, context_side
from .data import CANVAS, MASK, ImageBank

SAMPLES = 2      # rays along each side of a pixel
GRID = 13        # points along each edge of the cube that stand for the surface


class Pose(NamedTuple):
    """turn (B, 3, 3): from the body's axes to the camera's (right, down, away); distance (B,) of the camera from the
    body's centre, the body's size is about 1; light (B, 3): where it comes from, as long as it is strong, at most 1."""
    turn: Tensor
    distance: Tensor
    light: Tensor


class Solids(NamedTuple):
    """half (B, 3): half the edges; cut (B,): radius of the sphere over the cube's half edge, 1 leaves an ellipsoid and
    sqrt(3) the cuboid; image (B, 3): whose texture the faces across each axis carry; patch (B, 6, 4): centre and half
    size of each face's texture there, pixels, in the order -x, +x, -y, +y, -z, +z. -z faces an unturned camera."""
    half: Tensor
    cut: Tensor
    image: Tensor
    patch: Tensor

    def extent(self, pose: Pose) -> tuple[Tensor, Tensor]:
        """Lower and upper corner (B, 2) of the silhouette, in the plane through the centre."""
        line = torch.linspace(-1, 1, GRID, device=self.half.device)
        u, v = (part.reshape(-1) for part in torch.meshgrid(line, line, indexing='ij'))
        one = torch.ones_like(u)
        cube = torch.cat([torch.stack([side * one, u, v], -1).roll(axis, -1)
                          for axis in range(3) for side in (-1, 1)])
        reach = (self.cut[:, None] / cube.norm(dim=-1)).clamp(max=1)
        points = (cube * reach[..., None] * self.half[:, None]) @ pose.turn.mT
        flat = points[..., :2] * (pose.distance[:, None] / (pose.distance[:, None] + points[..., 2]))[..., None]
        return flat.amin(1), flat.amax(1)

    def show(self, bank: ImageBank, pose: Pose, anchor: Tensor, zoom: Tensor, size: int) -> tuple[Tensor, ...]:
        """Crops (B, 3, size, size) and their alpha (B, 1, size, size), with the middle of the silhouette at the pixel
        `anchor` (B, 2) and `zoom` (B,) times as large as in a window of its box. Also that box (B, 4), corners."""
        low, high = self.extent(pose)
        count, scale = len(zoom), (TEMPLATE_SIZE * zoom / context_side(*(high - low).unbind(-1)))[:, None]
        fine = SAMPLES * size
        place = pixel_centers(fine, anchor.device) / SAMPLES
        plane = (place - anchor[:, None]) / scale[:, None] + (low + high)[:, None] / 2
        distance = pose.distance[:, None, None]
        # camera and rays in a frame in which the body is the cube of half edge 1; a ray meets the plane at t = 1
        way = torch.cat([plane, distance.expand(-1, plane.shape[1], 1)], -1) @ pose.turn / self.half[:, None]
        start = -distance * pose.turn[:, 2:] / self.half[:, None]
        inverse = 1 / torch.where(way.abs() < 1e-6, 1e-6, way)
        sides = (-start - inverse.sign()) * inverse, (-start + inverse.sign()) * inverse
        square, slope = way.square().sum(-1), (start * way).sum(-1)
        root = slope.square() - square * (start.square().sum(-1) - self.cut[:, None].square())
        deep = root.clamp(min=0).sqrt()
        enters, leaves = sides[0].amax(-1), sides[1].amin(-1)
        curved = (-slope - deep) / square
        first, last = torch.maximum(enters, curved), torch.minimum(leaves, (deep - slope) / square)
        hit = ((first < last) & (root > 0)).float()
        point = start + first[..., None] * way
        axis = point.abs().argmax(-1)
        colour = self._texture(bank, point, axis) * (1 + self._lit(pose, point, axis, curved > enters))[:, None]
        hit = hit.view(count, 1, fine, fine)
        alpha = F.avg_pool2d(hit, SAMPLES)
        layer = F.avg_pool2d(colour.view(count, 3, fine, fine) * hit, SAMPLES) / alpha.clamp(min=1e-3)
        return layer.clamp(0, 255), alpha, from_center(torch.cat([anchor, scale * (high - low)], -1))

    def _texture(self, bank: ImageBank, point: Tensor, axis: Tensor) -> Tensor:
        """Colours (B, 3, P) of points (B, P, 3) in the cube's frame, on the faces across `axis` (B, P)."""
        depth = torch.gather(point, -1, axis[..., None])
        u, v = torch.where(axis == 0, point[..., 2], point[..., 0]), torch.where(axis == 1, point[..., 2], point[..., 1])
        face = (2 * axis + (depth[..., 0] > 0))[..., None].expand(-1, -1, 4)
        patch = torch.gather(self.patch, 1, face)
        place = patch[..., :2] + torch.stack([u, v], -1) / depth.abs().clamp(min=1e-6) * patch[..., 2:]
        grid = (place * (2 / CANVAS) - 1)[:, None]
        colour = 0
        for number in range(3):
            sampled = F.grid_sample(bank.pixels[self.image[:, number], :MASK].float(), grid, padding_mode='border',
                                    align_corners=False)[:, :, 0]
            colour = colour + sampled * (axis == number)[:, None]
        return colour

    def _lit(self, pose: Pose, point: Tensor, axis: Tensor, curved: Tensor) -> Tensor:
        """How much brighter (B, P) the light makes points (B, P, 3) than those it strikes along the surface."""
        flat = (axis[..., None] == torch.arange(3, device=axis.device)) * point.sign()
        normal = torch.where(curved[..., None], point, flat) / self.half[:, None]
        normal = normal / normal.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        return (normal @ pose.turn.mT * pose.light[:, None]).sum(-1)


def pixel_centers(size: int, device: torch.device) -> Tensor:
    """(1, size * size, 2) u, v of all pixels of a square crop, row by row."""
    line = torch.arange(size, device=device) + 0.5
    v, u = torch.meshgrid(line, line, indexing='ij')
    return torch.stack([u, v], -1).view(1, -1, 2)


def rotation(axis: Tensor, angle: Tensor) -> Tensor:
    """(B, 3, 3) about unit vectors (B, 3) by angles (B,), radians (Rodrigues)."""
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(-1, 3, 3)
    angle = angle[:, None, None]
    return torch.eye(3, device=axis.device) + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)
