import dataclasses
import io
import json
import tarfile

import cv2
import numpy as np
import pytest

from cract_core.training.pairs import Augmentation, PairSampler
from cract_core.training.pictures import load_bank, split

PLAIN = Augmentation(still_mirror=0, distractor=0, occluded=0, negative=0, grey=0, colour=0, lit=0, coarse=0, blurred=0, noisy=0,
                     compressed=0, pasted=0)
RED, GREEN, PINK = (40, 40, 220), (40, 200, 40), (220, 40, 220)


def add(archive, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def png(picture):
    return cv2.imencode('.png', picture)[1].tobytes()


def ground(random, size=(200, 280)):
    """Blue texture."""
    return np.dstack([random.integers(60, 200, size), *([np.full(size, 40)] * 2)]).astype(np.uint8)


def write(folder, name, entries):
    """entries: (row without file and size, picture, mask or None)."""
    rows = []
    with tarfile.open(folder / f'{name}.tar', 'w') as archive:
        for index, (row, picture, mask) in enumerate(entries):
            row = dict(row, file=f'{name}{index}.png', size=[picture.shape[1], picture.shape[0]])
            add(archive, row['file'], png(picture))
            if mask is not None:
                row['mask'] = f'{name}{index}.mask.png'
                add(archive, row['mask'], png(mask))
            rows.append(row)
    (folder / f'{name}.jsonl').write_text('\n'.join(json.dumps(row) for row in rows))


def thing(x, y, w, h, label='block'):
    return {'xywh': [float(v) for v in (x, y, w, h)], 'label': label}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """blocks: a red rectangle in each of 12 pictures, 4 of them with a larger green one listed after it. tracks: three
    videos of 5 frames in which the first object is a small red one and the second a large green one. ovals: a pink
    ellipse with its mask. empty: a scene without objects."""
    folder, random = tmp_path_factory.mktemp('shards'), np.random.default_rng(0)
    blocks, tracks, ovals = [], [], []
    for index in range(12):
        picture = ground(random)
        x, y, w, h = random.integers(60, 100), random.integers(60, 90), *random.integers(24, 45, 2)
        picture[y:y + h, x:x + w] = RED
        objects = [thing(x, y, w, h)]
        if index % 3 == 0:
            picture[40:100, 180:250] = GREEN
            objects.append(thing(180, 40, 70, 60, 'sheet'))
        blocks.append((dict(set='blocks', objects=objects), picture, None))
    for track in range(3):
        for frame in range(5):
            picture = ground(random)
            picture[30:85, 60:130] = GREEN
            x, y, w, h = 50 + 10 * frame, 100, 24 + 4 * frame, 30
            picture[y:y + h, x:x + w] = RED
            tracks.append((dict(set='tracks', track=f't{track}', frame=7 * frame,
                                objects=[thing(x, y, w, h), thing(60, 30, 70, 55)]), picture, None))
    for index in range(4):
        picture, mask = np.full((160, 160, 3), 230, np.uint8), np.zeros((160, 160), np.uint8)
        for image, color in ((picture, PINK), (mask, 255)):
            cv2.ellipse(image, (80, 80), (46, 18), 20 * index, 0, 360, color, -1)
        points = cv2.boundingRect(cv2.findNonZero(mask))
        ovals.append((dict(set='ovals', objects=[thing(*points, 'oval')]), picture, mask))
    write(folder, 'blocks', blocks)
    write(folder, 'tracks', tracks)
    write(folder, 'ovals', ovals)
    write(folder, 'empty', [(dict(set='empty', objects=[]), ground(random), None)] * 2)
    return folder


@pytest.fixture(scope='module')
def bank(folder):
    return load_bank(folder)


def sampler(bank, only=None, augmentation=PLAIN, **changes):
    mix = {name: float(name == only) for name in bank.sets} if only else {}
    return PairSampler(bank, np.ones(len(bank.track), bool), dataclasses.replace(augmentation, **changes), mix)


def box_of(color, crop):
    """Corners of the pixels of about that color."""
    y, x = np.nonzero((abs(crop.astype(int) - color) < 70).all(-1))
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])


def test_a_bank_holds_every_object_and_knows_the_tracks(bank):
    assert len(bank.pictures) == 12 + 15 + 4 + 2 and len(bank.track) == 12 + 4 + 30 + 4
    assert bank.first.sum() == 15 + 4                                     # of tracks, and those with a mask
    tracked = bank.first & (bank.set == bank.sets.index('tracks'))
    assert len(set(bank.track[tracked])) == 3
    x1, y1, x2, y2 = bank.box[0].astype(int)
    assert bank.pictures[0].pixels[(y1 + y2) // 2, (x1 + x2) // 2].tolist() == list(RED)


@pytest.mark.parametrize('only', ['blocks', 'tracks'])
def test_an_object_known_by_its_box_fills_its_box_in_both_crops(bank, only):
    """Shifted, scaled, stretched and mirrored, never turned: an upright rectangle stays one."""
    pairs = sampler(bank, only).sample(60, np.random.default_rng(1))
    counted = 0
    for crops, boxes in ((pairs.template, pairs.template_box), (pairs.search, pairs.search_box)):
        for crop, box in zip(crops, boxes):
            inside = np.concatenate([box[:2].clip(0) + 2, box[2:].clip(max=len(crop)) - 2]).round().astype(int)
            part = crop[inside[1]:inside[3], inside[0]:inside[2]]
            if part[..., 1].mean() > 110:
                continue                                                   # a sheet
            counted += 1
            np.testing.assert_allclose(box_of(RED, crop), box, atol=1.6)
            assert ((part[..., 2] > 130) & (part[..., 1] < 110)).mean() > 0.99
    assert counted > 60


def test_search_boxes_are_shifted_and_scaled_within_the_ranges(bank):
    pairs = sampler(bank, 'blocks').sample(200, np.random.default_rng(2))
    center = (pairs.search_box[:, :2] + pairs.search_box[:, 2:]) / 2 - 128.5
    assert 55 < abs(center).max() <= 64.01 and abs(center.mean(0)).max() < 8
    template, search = (np.sqrt(np.prod(box[:, 2:] - box[:, :2], 1)) for box in (pairs.template_box, pairs.search_box))
    change = abs(np.log(search / template))
    assert 0.2 < change.max() < 0.25 + 0.05 + 0.02


def test_pairs_of_a_track_show_its_first_object_in_different_frames(bank):
    pairs = sampler(bank, 'tracks').sample(80, np.random.default_rng(3))
    boxes = [(box[2:] - box[:2]) for box in pairs.search_box]
    assert not any(crop[int(box[1]) + 4:int(box[3]) - 4, int(box[0]) + 4:int(box[2]) - 4, 1].mean() > 110
                   for crop, box in zip(pairs.search, pairs.search_box.clip(0, 257)))
    aspects = np.array([np.divide(*size) for size in boxes])
    shown = np.array([np.divide(*(box[2:] - box[:2])) for box in pairs.template_box])
    assert (abs(np.log(aspects / shown)) > 0.16).mean() > 0.3              # more than the stretch: another frame
    told = np.isfinite(pairs.others).all(-1).any(1)
    assert told.mean() > 0.5


def test_other_objects_of_the_search_region_are_told_where_they_are(bank):
    pairs = sampler(bank, 'tracks').sample(60, np.random.default_rng(4))
    for crop, others in zip(pairs.search, pairs.others):
        for box in others[np.isfinite(others).all(1)]:
            low, high = box[:2].clip(0, 257), box[2:].clip(0, 257)
            x, y = ((low + high) / 2).astype(int).clip(0, 256)
            assert crop[y, x, 1] > 150 and crop[y, x, 2] < 90              # the green sheet


@pytest.mark.parametrize('pasted', [0.0, 1.0])
def test_the_box_of_a_turned_object_is_that_of_its_visible_pixels(bank, pasted):
    pairs = sampler(bank, 'ovals', pasted=pasted, base=1.0, turn=1.0).sample(40, np.random.default_rng(5))
    for crop, box in [*zip(pairs.search, pairs.search_box), *zip(pairs.template, pairs.template_box)]:
        if (box > 0).all() and (box < len(crop)).all():
            np.testing.assert_allclose(box_of(PINK, crop), box, atol=2.5)
    bright = np.array([crop[0, 0, 1:].min() > 180 for crop in pairs.search])
    assert not bright.any() if pasted else bright.all()                    # other scenes, or its own ground


def test_a_negative_pair_shows_two_objects_and_its_neighbour_of_a_track_is_none(bank):
    pairs = sampler(bank, negative=1.0, negative_class=0.0).sample(200, np.random.default_rng(6))
    assert 0.8 < pairs.negative.mean() < 1                                # one may draw itself
    of_tracks = sampler(bank, 'tracks', negative=1.0, negative_class=1.0)
    pairs = of_tracks.sample(100, np.random.default_rng(7))
    assert pairs.negative.any() and not pairs.negative.all()


def test_occluders_leave_most_of_the_target_and_distractors_leave_it_whole(bank):
    for changes, least in ((dict(occluded=1.0, occlusion=0.4), 0.55), (dict(distractor=1.0, same_class=0.0), 0.9)):
        pairs = sampler(bank, 'blocks', **changes).sample(60, np.random.default_rng(8))
        seen = []
        for crop, box in zip(pairs.search, pairs.search_box):
            x1, y1, x2, y2 = np.concatenate([box[:2].clip(0) + 1, box[2:].clip(max=257) - 1]).round().astype(int)
            part = crop[y1:y2, x1:x2]
            seen.append(max(((part[..., 2] > 130) & (part[..., 1] < 110)).mean(), (part[..., 1] > 150).mean()))
        assert np.mean(np.array(seen) > least) > 0.9, changes


def test_the_same_generator_gives_the_same_pairs_and_all_effects_stay_in_range(bank):
    full = sampler(bank, augmentation=Augmentation())
    first, again = (full.sample(24, np.random.default_rng(9)) for _ in range(2))
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)
    assert first.template.shape == (24, 129, 129, 3) and first.search.shape == (24, 257, 257, 3)
    assert np.isfinite(first.search_box).all() and (first.search_box[:, 2:] > first.search_box[:, :2]).all()


def test_loose_sets_are_marked_and_left_out_sets_are_never_drawn(bank):
    rows = np.ones(len(bank.track), bool)
    draws = PairSampler(bank, rows, PLAIN, {'ovals': 0.0, 'tracks': 1.0, 'blocks': 1.0}, ('blocks',))
    pairs = draws.sample(100, np.random.default_rng(10))
    blocks = set(bank.track[bank.set == bank.sets.index('blocks')])
    assert {bool(exact) for track, exact in zip(pairs.track, pairs.exact) if track in blocks} == {False}
    assert 0.3 < pairs.exact.mean() < 0.7
    assert not set(pairs.track) & set(bank.track[bank.set == bank.sets.index('ovals')])
    with pytest.raises(ValueError, match='lasot'):
        PairSampler(bank, rows, PLAIN, {'lasot': 1.0})
    with pytest.raises(ValueError, match='leaves all sets out'):
        PairSampler(bank, rows, PLAIN, dict.fromkeys(bank.sets, 0.0))


def test_an_object_that_fills_its_picture_is_no_target(tmp_path):
    picture = ground(np.random.default_rng(0))
    write(tmp_path, 'large', [(dict(set='large', objects=[thing(2, 2, 270, 190), thing(100, 80, 40, 40)]), picture, None)])
    bank = load_bank(tmp_path)
    draws = PairSampler(bank, np.ones(2, bool), PLAIN)
    assert set(draws.sample(20, np.random.default_rng(0)).track) == {bank.track[1]}


def test_held_out_pictures_and_tracks_are_apart(bank):
    training, held = split(bank, 0.2)
    assert held.any() and (training ^ held).all()
    for column in (bank.track, bank.picture):
        assert not set(column[training]) & set(column[held])
    assert split(bank, 0)[0].all()


def test_bad_shards_are_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match='no training shards'):
        load_bank(tmp_path)
    row = dict(set='blocks', objects=[thing(80, 80, 40, 40)])
    write(tmp_path, 'large', [(row, np.zeros((400, 200, 3), np.uint8), None)])
    with pytest.raises(ValueError, match='at most 320'):
        load_bank(tmp_path)
    write(tmp_path, 'large', [(row, np.zeros((200, 200, 3), np.uint8), np.zeros((100, 200), np.uint8))])
    with pytest.raises(ValueError, match='mask.png is not a picture of the size'):
        load_bank(tmp_path)
    (tmp_path / 'large.jsonl').write_text(json.dumps(dict(row, file='absent.png', size=[2, 2])))
    with pytest.raises(ValueError, match='absent.png'):
        load_bank(tmp_path)
    write(tmp_path, 'large', [(dict(row, objects=[]), np.zeros((200, 200, 3), np.uint8), None)])
    with pytest.raises(ValueError, match='no image'):
        load_bank(tmp_path)
