"""A rendered aerial scene with exact ground truth: a drone films one car in traffic.

The car passes under a bridge and trees, beside and among look-alikes (same shape, almost the same paint, another
mark on the roof), while the camera pans, turns, zooms and shakes and clouds change the light. Everything is a function
of the frame's number and the seed, so the scene has no end and repeats exactly.

World: metres, x along the road, y to its left, z up; the ground repeats every `PERIOD` x `DEPTH`. Pixels are
continuous: (0, 0) is the top-left corner of the first pixel and its centre is (0.5, 0.5).
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator

import cv2
import numpy as np

RATE = 30.0                 # frames a second of scene time
PERIOD, DEPTH = 160.0, 120.0
MAP_SCALE = 12              # pixels a metre of the ground's picture
LANES = (-5.25, -1.75, 1.75, 5.25)   # traffic keeps to the right: the first two run along +x
ROAD_SWING = 6.0            # amplitude of the road's bends
BRIDGE_HEIGHT = 6.5
VISIBLE_SHARE = 0.25        # of the target's silhouette must show for the frame to count as visible
SUN = np.array([-0.45, 0.40, 0.80]) / np.linalg.norm([-0.45, 0.40, 0.80])  # towards the sun
TRAFFIC_WINDOW = 75.0       # traffic further than this from the target comes back at the other end


@dataclass(frozen=True)
class SyntheticFrame:
    """One frame and what is true in it."""

    image: np.ndarray       # (H, W, 3) uint8 BGR
    box: np.ndarray         # (4,) x, y, w, h of the whole target, hidden or not: pixels, top-left corner, continuous
    visible: bool           # at least a quarter of the target's silhouette shows
    visibility: float       # share of the target's silhouette that no other thing hides, [0, 1]


def generate(num_frames: int = 300, seed: int = 0, size: tuple[int, int] = (640, 480)) -> Iterator[SyntheticFrame]:
    """Render `num_frames` frames of `size` (width, height), 30 a second of scene time.

    Target about 45 to 85 px long at a width of 640, and in proportion at other widths. The first frame shows it whole;
    trees may cover a part of it near frames 70 and 150, a bridge covers all of it near frame 230, and so about every
    400 frames. The same seed gives the same pixels.
    Raises ValueError for a size below 64 x 64 or a negative number of frames.
    """
    if min(size) < 64:
        raise ValueError(f'the scene needs at least 64 x 64 pixels, got {size[0]} x {size[1]}')
    if num_frames < 0:
        raise ValueError(f'the number of frames must not be negative, got {num_frames}')
    return _render(num_frames, seed, size)


def _render(num_frames: int, seed: int, size: tuple[int, int]) -> Iterator[SyntheticFrame]:
    scene = Scene(seed, size)
    for index in range(num_frames):
        yield scene.render(index)


class Scene:
    """What stays the same from frame to frame; `render` draws one of them."""

    def __init__(self, seed: int, size: tuple[int, int]):
        rng = np.random.default_rng(seed)
        self.size = size
        bridges = [(rng.uniform(112, 117), 2.7)]  # place on the road and half width
        self.phases = rng.uniform(0, 2 * np.pi, 12)
        self.target, self.traffic = _make_traffic(rng)
        self.parked = _make_parked(rng)
        houses, trees = _make_houses(rng, bridges), _make_trees(rng, bridges)
        still = [*houses, *trees, *(piece for bridge in bridges for piece in _make_bridge(*bridge))]
        self.still, self.centres = [thing for _, thing in still], np.array([centre for centre, _ in still])  # (M, 3)
        self.ground = _paint_ground(rng, houses, trees, bridges)
        self.noise = rng.normal(0, 3.0, (size[1] + 64, size[0] + 64, 3)).astype(np.int16)
        self.seed = seed

    def target_x(self, t: float) -> float:
        """Distance driven by the target at the time `t` (s): 12 m/s and a slow wave."""
        return 22.0 + 12.0 * t + 1.2 * (np.sin(1.3 * t + self.phases[0]) - np.sin(self.phases[0]))

    def camera(self, t: float) -> 'Camera':
        """The drone's camera at the time `t` (s)."""
        p = self.phases
        x, y, _ = _on_road(self.target_x(t), self.target.lane)
        shake = 0.0009 * np.array([np.sin(31 * t + p[8]) + np.sin(47 * t + p[9]),
                                   np.sin(37 * t + p[10]) + np.sin(53 * t + p[11])])
        aim = np.array([x + 7.5 * np.sin(0.8 * t + p[1]) + 1.0 * np.sin(3.1 * t + p[2]),
                        0.5 * y + 4.0 * np.sin(1.0 * t + p[3]), 0.0])
        return Camera(aim, distance=54.0 * (1 + 0.2 * np.sin(0.7 * t + p[4])),
                      azimuth=np.pi / 2 + 0.55 * np.sin(0.45 * t + p[5]) + shake[0],
                      pitch=np.deg2rad(58 + 6 * np.sin(0.6 * t + p[6])) + shake[1],
                      roll=0.06 * np.sin(0.9 * t + p[7]), size=self.size)

    def render(self, index: int) -> SyntheticFrame:
        """Draw frame `index`."""
        t = index / RATE
        camera, before = self.camera(t), self.camera(t - 1 / RATE)
        canvas = Canvas(self._draw_ground(camera, before))
        x_target = self.target_x(t)
        vehicles = [(vehicle, _on_road(x_target + vehicle.offset(t), vehicle.lane)) for vehicle in self.traffic]
        for tile in _tiles(x_target):
            vehicles += [(vehicle, (x + tile, y, heading)) for vehicle, (x, y, heading) in self.parked]
        poses = [(self.target, _on_road(x_target, self.target.lane)), *vehicles]
        placed = [(vehicle, vehicle.place(*pose), pose[2]) for vehicle, pose in poses]
        centres = np.array([points.mean(axis=0) for _, points, _ in placed])
        placed = [placed[i] for i in np.flatnonzero(camera.sees(centres))]
        for _, points, _ in placed:
            canvas.shade(camera.project(_shadow(points)), 0.5)

        things = [(camera.depth(points.mean(axis=0)), vehicle.draw, (points, heading))
                  for vehicle, points, heading in placed]
        for tile in _tiles(x_target):
            centres = self.centres + (tile, 0, 0)
            things += [(camera.depth(centres[i]), self.still[i].draw, (centres[i],))
                       for i in np.flatnonzero(camera.sees(centres))]
        for _, draw, where in sorted(things, key=lambda thing: -thing[0]):  # far to near
            draw(canvas, camera, *where)

        outline = camera.project(self.target.place(*poses[0][1]))
        low, high = outline.min(axis=0), outline.max(axis=0)
        visibility = canvas.visibility()
        return SyntheticFrame(self._expose(canvas.image, index), np.concatenate([low, high - low]),
                              visibility >= VISIBLE_SHARE, visibility)

    def _draw_ground(self, camera: 'Camera', before: 'Camera') -> np.ndarray:
        """The ground seen by the camera, blurred by half of its motion since the frame before."""
        tile = camera.aim[0] // PERIOD * PERIOD  # any repetition will do; the nearest keeps the numbers small
        to_metres = np.array([[1 / MAP_SCALE, 0, tile], [0, 1 / MAP_SCALE, -DEPTH / 2], [0, 0, 1]])
        half = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])  # continuous pixels to OpenCV's pixel centres
        matrix = half @ camera.ground_homography() @ to_metres @ np.linalg.inv(half)
        image = cv2.warpPerspective(self.ground, matrix, self.size, flags=cv2.INTER_LINEAR,
                                    borderMode=cv2.BORDER_WRAP)
        dx, dy = 0.5 * (camera.project(camera.aim[None]) - before.project(camera.aim[None]))[0]
        reach = int(np.clip(np.ceil(max(abs(dx), abs(dy)) / 2), 0, 6))
        if reach:
            kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
            ends = [(int(round(16 * (reach + s * dx / 2))), int(round(16 * (reach + s * dy / 2)))) for s in (-1, 1)]
            cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_8, 4)
            image = cv2.filter2D(image, -1, kernel / kernel.sum())
        return image

    def _expose(self, image: np.ndarray, index: int) -> np.ndarray:
        """Lens blur, passing clouds (brightness and tint) and sensor noise."""
        t = index / RATE
        cloud = 0.5 + 0.5 * np.sin(0.9 * t + self.phases[2])
        gains = (1.06 - 0.34 * cloud) * (1 + 0.04 * cloud * np.array([1, 0, -1]))
        table = np.clip(np.arange(256)[:, None] * gains, 0, 255).astype(np.uint8)[None]
        image = cv2.LUT(cv2.GaussianBlur(image, (0, 0), 0.55), table)
        x, y = np.random.default_rng((self.seed, index)).integers(0, 64, 2)
        return cv2.add(image, self.noise[y:y + image.shape[0], x:x + image.shape[1]], dtype=cv2.CV_8U)


class Camera:
    """A pinhole camera that looks at `aim` from `distance` metres.

    `azimuth` is the direction of view on the ground (0 along x), `pitch` how far it looks down (pi/2 straight down).
    """

    def __init__(self, aim, distance: float, azimuth: float, pitch: float, roll: float, size: tuple[int, int]):
        self.aim, self.azimuth, self.size = aim, azimuth, size
        self.focal = 1.1 * size[0]
        forward = np.array([np.cos(pitch) * np.cos(azimuth), np.cos(pitch) * np.sin(azimuth), -np.sin(pitch)])
        right = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
        down = np.cross(forward, right)
        c, s = np.cos(roll), np.sin(roll)
        self.rotation = np.stack([c * right + s * down, c * down - s * right, forward])
        self.position = aim - distance * forward
        self.matrix = np.array([[self.focal, 0, size[0] / 2], [0, self.focal, size[1] / 2], [0, 0, 1]]) @ self.rotation

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points `(N, 3)` in front of the camera -> pixels `(N, 2)`."""
        image = (points - self.position) @ self.matrix.T
        return image[:, :2] / image[:, 2:]

    def depth(self, point: np.ndarray) -> float:
        """Distance along the axis of view, metres."""
        return float(self.rotation[2] @ (point - self.position))

    def sees(self, points: np.ndarray) -> np.ndarray:
        """Whether each of `points` `(N, 3)` lies in the frame or within 0.4 of its width beside it, `(N,)` bool."""
        image = (points - self.position) @ self.matrix.T
        reach = np.array(self.size) / 2 + 0.4 * self.size[0]
        with np.errstate(divide='ignore', invalid='ignore'):
            near = np.abs(image[:, :2] / image[:, 2:] - np.array(self.size) / 2) < reach
        return near.all(axis=1) & (image[:, 2] > 5)

    def ground_homography(self) -> np.ndarray:
        """`(3, 3)`: metres (x, y, 1) on the ground -> pixels."""
        return np.column_stack([self.matrix[:, 0], self.matrix[:, 1], -self.matrix @ self.position])


class Canvas:
    """A picture that knows how much of the target's silhouette is still uncovered."""

    def __init__(self, image: np.ndarray):
        self.image = image
        self._alive = None
        self._area = 0

    def fill(self, fixed: np.ndarray, color) -> None:
        """Fill a convex polygon given in fixed point (see `_fixed`)."""
        cv2.fillConvexPoly(self.image, fixed, color, cv2.LINE_AA, 4)
        if self._alive is not None:
            cv2.fillConvexPoly(self._alive, fixed, 0, cv2.LINE_8, 4)

    def watch(self, parts: list[np.ndarray]) -> None:
        """Take the union of the convex hulls of `parts` as the silhouette that `visibility` speaks of."""
        self._alive = np.zeros(self.image.shape[:2], np.uint8)
        for points in parts:
            cv2.fillConvexPoly(self._alive, cv2.convexHull(_fixed(points)), 255, cv2.LINE_8, 4)
        self._area = cv2.countNonZero(self._alive)

    def visibility(self) -> float:
        """Share of the silhouette's pixels that nothing was drawn over since `watch`; 0 if it lies outside."""
        return cv2.countNonZero(self._alive) / self._area if self._area else 0.0

    def shade(self, points: np.ndarray, strength: float) -> None:
        """Darken the convex hull of `points`."""
        x1, y1 = np.maximum(np.floor(points.min(axis=0)).astype(int), 0)
        x2, y2 = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 1, self.image.shape[1::-1])
        if x1 >= x2 or y1 >= y2:
            return
        mask = np.zeros((y2 - y1, x2 - x1), np.uint8)
        hull = cv2.convexHull((points - (x1, y1)).astype(np.float32))[:, 0]
        cv2.fillConvexPoly(mask, _fixed(hull), 255, cv2.LINE_AA, 4)
        region = self.image[y1:y2, x1:x2]
        region[:] = region * (1 - strength / 255 * cv2.blur(mask, (3, 3))[..., None])

    def stamp(self, sprite: np.ndarray, centre: np.ndarray, radius: float, turn: float) -> None:
        """Paste a round sprite (S, S, 4) with alpha, scaled to `radius` pixels and turned by `turn` radians."""
        x1, y1 = np.floor(centre - radius).astype(int)
        side = int(np.ceil(2 * radius)) + 2
        scale = 2 * radius / sprite.shape[0]
        c, s = scale * np.cos(turn), scale * np.sin(turn)
        middle = sprite.shape[0] / 2 - 0.5
        target = centre - (x1, y1) - 0.5
        matrix = np.array([[c, -s, target[0] - (c - s) * middle], [s, c, target[1] - (s + c) * middle]])
        left, top = max(x1, 0), max(y1, 0)
        right, bottom = min(x1 + side, self.image.shape[1]), min(y1 + side, self.image.shape[0])
        if left >= right or top >= bottom:
            return
        patch = cv2.warpAffine(sprite, matrix, (side, side), flags=cv2.INTER_LINEAR)
        patch = patch[top - y1:bottom - y1, left - x1:right - x1]
        alpha = patch[..., 3:].astype(np.float32) / 255
        region = self.image[top:bottom, left:right]
        region[:] = region * (1 - alpha) + patch[..., :3] * alpha
        if self._alive is not None:
            self._alive[top:bottom, left:right][patch[..., 3] > 127] = 0


class Solid:
    """Convex faces over shared points; those that look away from the camera are not drawn."""

    def __init__(self, points, faces):
        self.points = np.asarray(points, float)         # (V, 3)
        self.faces = [np.asarray(indices) for indices, _ in faces]
        self.colors = np.array([color for _, color in faces], float)           # (F, 3)
        self.corners = np.array([indices[:3] for indices in self.faces])       # (F, 3): enough to know where it looks
        a, b, c = self.points[self.corners].transpose(1, 0, 2)
        normals = np.cross(b - a, c - a)
        self.normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)

    def draw(self, canvas: Canvas, camera: Camera, shift: np.ndarray) -> None:
        """Draw it moved by `shift` metres."""
        self._paint(canvas, camera, self.points + shift, self.normals)

    def _paint(self, canvas: Canvas, camera: Camera, points: np.ndarray, normals: np.ndarray) -> None:
        """Draw the faces in their order, each lit by its angle to the sun."""
        pixels = camera.project(points)
        a, b, c = pixels[self.corners].transpose(1, 0, 2)
        # faces run counter-clockwise as seen from outside, and y of pixels runs down
        turn = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
        colors = np.minimum(self.colors * (0.55 + 0.5 * np.maximum(normals @ SUN, 0))[:, None], 255)
        fixed = _fixed(pixels)
        for face in np.flatnonzero(turn < 0):
            canvas.fill(fixed[self.faces[face]], colors[face])


class Tree:
    """A round crown."""

    def __init__(self, radius: float, crown: np.ndarray, turn: float):
        self.radius, self.crown, self.turn = radius, crown, turn

    def draw(self, canvas: Canvas, camera: Camera, centre: np.ndarray) -> None:
        """Draw it with the middle of its crown at `centre`."""
        canvas.stamp(self.crown, camera.project(centre[None])[0],
                     camera.focal * self.radius / camera.depth(centre), self.turn - camera.azimuth)


class Vehicle(Solid):
    """A car of a shape, a paint and a mark on its roof, driving in a lane."""

    SHAPES = {  # length, width, hip height, roof height, cabin at the hip (rear, front), roof (rear, front)
        'saloon': (4.6, 1.85, 0.90, 1.45, (-1.80, 0.95), (-1.15, 0.30)),
        'van': (5.2, 2.00, 1.05, 2.20, (-2.50, 1.75), (-2.40, 1.10)),
        'pickup': (5.2, 1.95, 1.00, 1.70, (-0.75, 1.25), (-0.55, 0.65)),
    }

    def __init__(self, shape: str, paint, mark, lane: float = 0.0, gap: float = 0.0, gain: float = 0.0,
                 is_target: bool = False):
        length, width, hip, roof, cabin, top = self.SHAPES[shape]
        self.lane, self.gap, self.gain, self.is_target = lane, gap, gain, is_target
        self._points, self._faces = [], []
        paint, glass, dark = np.asarray(paint, float), np.array([70, 58, 48]), np.array([34, 32, 32])
        x, y = length / 2, width / 2

        self._frustum((-x, x, y, 0.12), (-x, x, y, 0.38), dark, with_top=False)
        self._frustum((-x, x, y, 0.38), (-x + 0.08, x - 0.12, y - 0.05, hip), paint)
        for side in (-1, 1):
            for centre in (-0.30 * length, 0.31 * length):
                self._side_quad(side, y + 0.01, centre - 0.33, centre + 0.33, 0.12, 0.66, dark * 0.6)
        for end, lamp in ((x + 0.01, (215, 235, 240)), (-x - 0.01, (40, 30, 190))):
            for side in (-1, 1):
                inner, outer = side * (y - 0.55), side * (y - 0.12)
                corners = [(end, inner, 0.5), (end, outer, 0.5), (end, outer, 0.74), (end, inner, 0.74)]
                self._face(corners if side * end > 0 else corners[::-1], lamp)
        if shape == 'pickup':
            self._top_quad(-x + 0.25, cabin[0] - 0.15, y - 0.25, hip + 0.005, dark * 1.4)
        else:
            self._top_quad(cabin[1] + 0.45, x - 0.3, y - 0.35, hip + 0.005, paint * 0.93)
        self.lower = len(self._points)  # points before this one belong to the lower block

        self._frustum((*cabin, y - 0.10, hip), (*top, y - 0.26, roof), paint, ends=glass)
        for side in (-1, 1):
            corners = []
            for share in (0.18, 0.80):  # the side window's lower and upper edge, as a share of the cabin's height
                rear, front = ((1 - share) * np.array(cabin) + share * np.array(top)) + (0.35, -0.30)
                reach, z = side * (y - 0.09 - 0.16 * share), hip + share * (roof - hip)
                corners += [(rear, reach, z), (front, reach, z)][::1 if share < 0.5 else -1]
            self._face(corners if side < 0 else corners[::-1], glass)
        for x1, x2, half, color in mark:
            middle, reach = (top[0] + top[1]) / 2, (top[1] - top[0]) / 2
            self._top_quad(middle + x1 * reach, middle + x2 * reach, half * (y - 0.26), roof + 0.005, color)
        super().__init__(self._points, self._faces)

    def offset(self, t: float) -> float:
        """How far ahead of the target it drives at the time `t` (s), metres."""
        return (self.gap + self.gain * t + TRAFFIC_WINDOW) % (2 * TRAFFIC_WINDOW) - TRAFFIC_WINDOW

    def place(self, x: float, y: float, heading: float) -> np.ndarray:
        """Its points `(V, 3)` in the world."""
        return self.points @ _turn(heading) + (x, y, 0)

    def draw(self, canvas: Canvas, camera: Camera, points: np.ndarray, heading: float) -> None:
        """Draw it with its points in the world (see `place`)."""
        self._paint(canvas, camera, points, self.normals @ _turn(heading))
        if self.is_target:
            pixels = camera.project(points)
            canvas.watch([pixels[:self.lower], pixels[self.lower:]])

    def _face(self, corners, color) -> None:
        self._faces.append((np.arange(len(self._points), len(self._points) + len(corners)), color))
        self._points.extend(corners)

    def _frustum(self, low, high, color, with_top: bool = True, ends=None) -> None:
        """Four walls, and a top, between two rectangles (rear x, front x, half width, z)."""
        (r0, f0, y0, z0), (r1, f1, y1, z1) = low, high
        ends = color if ends is None else ends
        self._face([(f0, -y0, z0), (f0, y0, z0), (f1, y1, z1), (f1, -y1, z1)], ends)
        self._face([(r0, y0, z0), (r0, -y0, z0), (r1, -y1, z1), (r1, y1, z1)], ends)
        self._face([(r0, -y0, z0), (f0, -y0, z0), (f1, -y1, z1), (r1, -y1, z1)], color)
        self._face([(f0, y0, z0), (r0, y0, z0), (r1, y1, z1), (f1, y1, z1)], color)
        if with_top:
            self._face([(r1, -y1, z1), (f1, -y1, z1), (f1, y1, z1), (r1, y1, z1)], color)

    def _side_quad(self, side, y, x1, x2, z1, z2, color) -> None:
        corners = [(x1, side * y, z1), (x2, side * y, z1), (x2, side * y, z2), (x1, side * y, z2)]
        self._face(corners if side < 0 else corners[::-1], color)

    def _top_quad(self, x1, x2, y, z, color) -> None:
        self._face([(x1, -y, z), (x2, -y, z), (x2, y, z), (x1, y, z)], color)


def _make_traffic(rng) -> tuple[Vehicle, list[Vehicle]]:
    """The target and the others; three of them look like it."""
    paints = np.array([[60, 60, 190], [190, 120, 50], [205, 205, 200], [70, 140, 60], [60, 170, 215], [110, 110, 112]])
    order = rng.permutation(len(paints))
    paint = paints[order[0]] + rng.uniform(-10, 10, 3)
    light, dark = (230, 235, 238), (45, 42, 40)
    mark = [(-0.15, 0.35, 0.9, light if paint.mean() < 160 else dark)]

    def alike():
        return np.clip(paint * rng.choice((0.72, 1.28)) + rng.uniform(-14, 14, 3), 20, 235)

    def other(index):
        return paints[order[1 + index % 5]] + rng.uniform(-15, 15, 3)

    target = Vehicle('saloon', paint, mark, LANES[0], is_target=True)
    rear_mark = [(-0.9, -0.55, 0.9, mark[0][3])]
    stripes = [(-0.9, 0.9, 0.18, mark[0][3])]
    traffic = [
        Vehicle('saloon', alike(), [], LANES[0], gap=-15.0),
        Vehicle('saloon', other(0), [], LANES[0], gap=12.0),
        Vehicle('van', other(1), [], LANES[0], gap=27.0),
        Vehicle('saloon', alike(), rear_mark, LANES[0], gap=-31.0),
        Vehicle('saloon', alike(), [], LANES[1], gap=7.5, gain=0.4),
        Vehicle('pickup', other(2), [], LANES[1], gap=-10.0, gain=0.4),
        Vehicle('saloon', other(3), stripes, LANES[1], gap=24.0, gain=0.4),
        Vehicle('saloon', alike(), stripes, LANES[2], gap=0.0, gain=-23.0),
        Vehicle('van', other(4), [], LANES[2], gap=60.0, gain=-23.0),
        Vehicle('saloon', other(5), [], LANES[2], gap=-40.0, gain=-23.0),
        Vehicle('saloon', alike(), [], LANES[3], gap=5.0, gain=-25.0),
        Vehicle('pickup', other(6), [], LANES[3], gap=70.0, gain=-25.0),
    ]
    return target, traffic


def _make_parked(rng) -> list[tuple[Vehicle, tuple[float, float, float]]]:
    """Cars at rest beside the road, with their places in the first period."""
    return [(Vehicle(rng.choice(['saloon', 'van', 'pickup']), rng.uniform(50, 220, 3), []),
             (x, _road_y(x) + side * rng.uniform(10.5, 11.5), rng.choice((0.0, np.pi)) + rng.normal(0, 0.08)))
            for x, side in zip(np.arange(8, PERIOD, 32) + rng.uniform(0, 16, 5), rng.choice((-1, 1), 5))]


def _make_houses(rng, bridges) -> list[tuple[np.ndarray, Solid]]:
    """Houses with gabled roofs away from the road, with their places."""
    houses = []
    for side in (-1, 1):
        x = 4.0
        while x < PERIOD - 14:
            length, width = rng.uniform(9, 15), rng.uniform(7, 10)
            eaves, ridge = rng.uniform(2.8, 5.0), rng.uniform(1.6, 2.8)
            y = side * rng.uniform(24, 36)
            if all(abs(x + length / 2 - at) > length / 2 + 5 + half for at, half in bridges):
                houses.append((np.array([x + length / 2, y, 0]), _house(rng, length, width, eaves, ridge)))
            x += length + rng.uniform(8, 26)
    return houses


def _house(rng, length, width, eaves, ridge) -> Solid:
    """A house around (0, 0) whose ridge runs along x; its first ten points are its corners."""
    wall = rng.uniform(150, 215) * np.array([0.90, 0.96, 1.0])
    tiles = np.array([[62, 74, 140], [88, 88, 92], [60, 84, 118], [72, 66, 108]])
    roof = tiles[rng.integers(4)] * rng.uniform(0.85, 1.15)
    x1, x2, y1, y2, top = -length / 2, length / 2, -width / 2, width / 2, eaves + ridge
    points = [(x1, y1, 0), (x2, y1, 0), (x2, y2, 0), (x1, y2, 0), (x1, y1, eaves), (x2, y1, eaves), (x2, y2, eaves),
              (x1, y2, eaves), (x1, 0, top), (x2, 0, top)]
    faces = [((0, 1, 5, 4), wall), ((2, 3, 7, 6), wall), ((1, 2, 6, 9, 5), wall), ((3, 0, 4, 8, 7), wall),
             ((4, 5, 9, 8), roof), ((6, 7, 8, 9), roof)]

    def quad(corners, color):
        faces.append((range(len(points), len(points) + 4), color))
        points.extend(corners)

    for left in np.arange(x1 + 1.0, x2 - 1.8, 2.6):  # windows on the long walls
        for wall_y, order in ((y1 - 0.01, 1), (y2 + 0.01, -1)):
            quad([(left, wall_y, 1.0), (left + 1.1, wall_y, 1.0), (left + 1.1, wall_y, 2.2),
                  (left, wall_y, 2.2)][::order], (80, 66, 54))
    for share in (0.25, 0.5, 0.75):  # rows of tiles
        for edge, order in ((y1, 1), (y2, -1)):
            near, far = (edge * (1 - s) for s in (share, share + 0.03))
            z1, z2 = (eaves + ridge * s + 0.01 for s in (share, share + 0.03))
            quad([(x1, near, z1), (x2, near, z1), (x2, far, z2), (x1, far, z2)][::order], roof * 0.82)
    return Solid(points, faces)


def _make_trees(rng, bridges) -> list[tuple[np.ndarray, Tree]]:
    """Trees in the fields and a few that reach over the nearest lane, with the middles of their crowns."""
    crowns = [_paint_crown(rng) for _ in range(5)]
    places = [(x := rng.uniform(0, PERIOD), _road_y(x) + rng.choice((-1, 1)) * rng.uniform(13, 50),
               rng.uniform(1.6, 3.0)) for _ in range(70)]
    places += [(x, _road_y(x) - rng.uniform(9.6, 10.2), rng.uniform(2.2, 2.7))
               for x in np.array([50, 84, 150]) + rng.uniform(-5, 5, 3)]
    return [(np.array([x, y, 1.3 * radius + 1.2]), Tree(radius, crowns[rng.integers(5)], rng.uniform(0, 2 * np.pi)))
            for x, y, radius in places if all(abs(x - at) > half + 4 for at, half in bridges)]


def _make_bridge(x: float, half: float) -> list[tuple[np.ndarray, Solid]]:
    """A bridge that crosses the road above it, in pieces 6 m long, with their places."""
    low, reach = -1.1, 3.02
    concrete, asphalt, paint = np.array([150, 156, 160.0]), np.array([84, 82, 80.0]), np.array([205, 210, 210.0])
    points, faces = [], []

    def quad(corners, color):
        faces.append((range(len(points), len(points) + 4), color))
        points.extend(corners)

    def strip(x1, x2, z, color, reach=reach):
        quad([(x1, -reach, z), (x2, -reach, z), (x2, reach, z), (x1, reach, z)], color)

    def wall(at, z1, z2, side, color):
        quad([(at, -reach, z1), (at, reach, z1), (at, reach, z2), (at, -reach, z2)][::side], color)

    for side in (-1, 1):
        wall(side * half, low, 0.9, side, concrete * 0.8)
    strip(-half, half, 0, asphalt)
    for left in (0.75 * half, -0.75 * half):
        strip(left - 0.08, left + 0.08, 0, paint)
    for side in (-1, 1):
        inner, outer = sorted((side * (half - 0.35), side * half))
        wall(side * (half - 0.35), 0, 0.9, -side, concrete)
        strip(inner, outer, 0.9, concrete)
    piece = Solid(points, faces)
    return [(np.array([x, y, BRIDGE_HEIGHT]), piece) for y in np.arange(-69.0, 72.0, 6.0)]


def _paint_ground(rng, houses, trees, bridges) -> np.ndarray:
    """The ground from straight above, `(DEPTH, PERIOD) * MAP_SCALE` pixels, without seams at its edges.

    Row 0 is y = -DEPTH / 2.
    """
    height, width = int(DEPTH * MAP_SCALE), int(PERIOD * MAP_SCALE)
    x = (np.arange(width, dtype=np.float32) + 0.5)[None] / MAP_SCALE
    y = (np.arange(height, dtype=np.float32) + 0.5)[:, None] / MAP_SCALE - DEPTH / 2
    grain = sum(weight * _noise(rng, (height, width), cell)
                for cell, weight in ((120, 1.2), (40, 0.8), (12, 0.7), (4, 0.6), (1, 0.5)))[..., None]
    ground = np.empty((height, width, 3), np.float32)

    # fields: parcels of crops in rows, meadows and bare soil
    tints = np.array([[52, 108, 88], [60, 124, 104], [78, 138, 142], [96, 128, 158], [66, 98, 78], [112, 150, 172]])
    for side in (-1, 1):
        left = 0
        while left < width:
            right = min(left + int(rng.uniform(22, 48) * MAP_SCALE), width)
            right = width if width - right < 12 * MAP_SCALE else right
            middle = int((DEPTH / 2 + side * rng.uniform(26, 38)) * MAP_SCALE)
            half = height // 2
            for top, bottom in (((0, middle), (middle, half)) if side < 0 else ((half, middle), (middle, height))):
                angle, spacing = rng.uniform(0, np.pi), rng.uniform(1.0, 2.4)
                rows = np.sin(2 * np.pi * (x[:, left:right] * np.cos(angle) + y[top:bottom] * np.sin(angle)) / spacing)
                depth = rng.choice((0.0, 4.0, 9.0))
                ground[top:bottom, left:right] = (tints[rng.integers(len(tints))] + depth * rows[..., None]) * 0.95
            left = right

    def blend(color, weight, texture):
        """Paint `color` and `texture` times the grain over the ground where `weight` (H, W) is above 0."""
        weight = np.broadcast_to(weight, (height, width))
        rows, columns = (np.flatnonzero((weight > 0).any(axis=axis)) for axis in (1, 0))
        part = np.s_[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
        change = texture * grain[part] + np.asarray(color, np.float32) - ground[part]
        change *= weight[part][..., None]
        ground[part] += change

    away = np.abs(y - _road_y(x))
    ground += 9 * grain
    blend((70, 122, 106), 1 - _step(away, 12.5 + 1.5 * _noise(rng, (height, width), 30), 1.0), 9)

    # houses' yards and the road's shoulders
    for centre, house in houses:
        low, high = house.points[:, :2].min(axis=0) + centre[:2] - 2, house.points[:, :2].max(axis=0) + centre[:2] + 2
        blend((128, 140, 150), _step(x, low[0], 0.3) * (1 - _step(x, high[0], 0.3))
              * _step(y, low[1], 0.3) * (1 - _step(y, high[1], 0.3)), 6)
    slope = 1 / np.sqrt(1 + (ROAD_SWING * 2 * np.pi / PERIOD * np.cos(2 * np.pi * x / PERIOD)) ** 2)
    off = (y - _road_y(x)) * slope
    blend((122, 138, 150), _step(np.abs(off), 7.4, 0.2) * (1 - _step(np.abs(off), 8.6, 0.5)), 7)

    # the road with its tyre tracks, patches and lines
    on_road = 1 - _step(np.abs(off), 7.5, 0.1)
    blend((92, 92, 94), on_road, 3.5)
    worn = sum(np.exp(-((off - lane - wheel) / 0.3) ** 2) for lane in LANES for wheel in (-0.8, 0.8))
    blend((40, 40, 42), on_road * np.clip(0.13 * worn + 0.08 * _noise(rng, (height, width), 60), 0, 1), 3.5)
    for _ in range(14):
        at, lane, reach = rng.uniform(5, PERIOD - 5), rng.choice(LANES), rng.uniform(1, 4)
        blend((70, 70, 72), 0.8 * (1 - _step(np.abs(x - at), reach, 0.1))
              * (1 - _step(np.abs(off - lane), rng.uniform(0.6, 1.5), 0.1)), 3)
    dashes = _step(x % 8, 0.5, 0.1) * (1 - _step(x % 8, 3.5, 0.1))
    white, yellow = (205, 208, 208), (80, 175, 205)
    for place, color, gate in ((-7.1, white, 1), (7.1, white, 1), (-3.5, white, dashes), (3.5, white, dashes),
                               (-0.15, yellow, 1), (0.15, yellow, 1)):
        blend(color, 0.85 * gate * (1 - _step(np.abs(off - place), 0.08, 0.08)), 6)

    # shadows of what stands still
    shadow = np.zeros((height, width), np.float32)

    def darken(corners):
        for tile in (-PERIOD, 0, PERIOD):
            pixels = (corners + (tile, DEPTH / 2)) * MAP_SCALE
            cv2.fillConvexPoly(shadow, cv2.convexHull(_fixed(pixels)), 1.0, cv2.LINE_8, 4)

    for centre, house in houses:
        darken(_shadow(house.points[:10] + centre)[:, :2])
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    for centre, tree in trees:
        ring = tree.radius * np.column_stack([np.cos(angles), np.sin(angles), 0 * angles])
        darken(_shadow(centre + ring)[:, :2])
    for x, half in bridges:
        deck = np.array([(x - half, -90), (x + half, -90), (x + half, 90), (x - half, 90)])
        darken(deck - SUN[:2] / SUN[2] * BRIDGE_HEIGHT)
    ground *= 1 - 0.42 * cv2.blur(shadow, (5, 5))[..., None]
    return np.clip(ground, 0, 255).astype(np.uint8)


def _paint_crown(rng) -> np.ndarray:
    """A tree from above as (96, 96, 4) BGR and alpha: lumps of leaves, lighter towards the sun."""
    side = 96
    sprite = np.zeros((side, side, 4), np.uint8)
    base = np.array([38, 84, 58]) * rng.uniform(0.85, 1.2) + rng.uniform(-8, 8, 3)
    for layer in range(130):
        share = layer / 130
        reach, angle = (1 - 0.75 * share) * np.sqrt(rng.uniform()) * 36, rng.uniform(0, 2 * np.pi)
        centre = (int(side / 2 + reach * np.cos(angle) - 6 * share), int(side / 2 + reach * np.sin(angle) - 6 * share))
        color = base * (0.6 + 0.75 * share + rng.normal(0, 0.12))
        cv2.circle(sprite, centre, int(rng.uniform(4, 11)), (*np.clip(color, 0, 255), 255), -1, cv2.LINE_AA)
    return sprite


def _noise(rng, shape: tuple[int, int], cell: int) -> np.ndarray:
    """Smooth noise of unit variance about every `cell` pixels that continues over the edges, `shape` float32."""
    coarse = rng.normal(size=(shape[0] // cell, shape[1] // cell)).astype(np.float32)
    if cell == 1:
        return coarse
    padded = np.pad(coarse, 2, mode='wrap')
    fine = cv2.resize(padded, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
    return fine[2 * cell:2 * cell + shape[0], 2 * cell:2 * cell + shape[1]]


def _step(value, edge, softness: float):
    """0 below `edge`, 1 above it, a ramp of width `softness` between."""
    return np.clip((value - edge) / softness + 0.5, 0, 1)


def _turn(heading: float) -> np.ndarray:
    """`(3, 3)`: multiplied from the right, turns rows of points about z."""
    c, s = np.cos(heading), np.sin(heading)
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def _road_y(x):
    """The road's centre line, metres."""
    return ROAD_SWING * np.sin(2 * np.pi * x / PERIOD)


def _on_road(x: float, lane: float) -> tuple[float, float, float]:
    """Position and heading of a vehicle in `lane` (metres left of the centre line) beside the road's point `x`."""
    slope = np.arctan(ROAD_SWING * 2 * np.pi / PERIOD * np.cos(2 * np.pi * x / PERIOD))
    return (x - lane * np.sin(slope), _road_y(x) + lane * np.cos(slope), slope if lane < 0 else slope + np.pi)


def _tiles(x: float) -> tuple[float, ...]:
    """Offsets of the repetitions of the ground that can be seen around `x`."""
    here = np.floor(x / PERIOD) * PERIOD
    return (here - PERIOD, here, here + PERIOD)


def _shadow(points: np.ndarray) -> np.ndarray:
    """Where the sun throws `points` `(N, 3)` on the ground."""
    return np.column_stack([points[:, :2] - points[:, 2:] * SUN[:2] / SUN[2], np.zeros(len(points))])


def _fixed(points: np.ndarray) -> np.ndarray:
    """Continuous pixels -> OpenCV's fixed point with 4 fractional bits, whose whole numbers are pixel centres."""
    return np.round((np.asarray(points) - 0.5) * 16).astype(np.int32)
