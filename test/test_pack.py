"""Packing of the training sets: a miniature of each published layout, written here."""
import dataclasses
import json
import tarfile

import cv2
import numpy as np
import pytest

from cract_core import cli
from cract_core.training.pairs import Augmentation, PairSampler
from cract_core.training.pictures import load_bank
from cract_core.training.pack import pack

SIZE = (480, 360)
RED = (30, 30, 230)


def scene(box, seed):
    """A grey texture with a red object in `box`."""
    image = np.random.default_rng(seed).integers(90, 160, (*SIZE[::-1], 1)).astype(np.uint8).repeat(3, 2)
    x, y, w, h = box
    image[y:y + h, x:x + w] = RED
    return image


def video(folder, names, seed, absent=()):
    """Write frames of a moving red object; returns its boxes."""
    folder.mkdir(parents=True)
    boxes = []
    for i, name in enumerate(names):
        box = (60 + 3 * i + 20 * seed, 100 + 2 * i, 30 + i % 5, 24)
        cv2.imwrite(str(folder / name), scene(box, i), (cv2.IMWRITE_JPEG_QUALITY, 95))
        boxes.append((0, 0, 0, 0) if i in absent else box)
    return boxes


def lines(path, rows):
    path.write_text(''.join(','.join(map(str, row)) + '\n' for row in rows))


def lasot(root):
    for name, seed in (('cat-2', 0), ('cat-1', 1)):     # cat-1 is a test video
        folder = root / 'cat' / name
        boxes = video(folder / 'img', [f'{i + 1:08d}.jpg' for i in range(12)], seed, absent=(4,))
        lines(folder / 'groundtruth.txt', boxes)
        for flag in ('full_occlusion', 'out_of_view'):
            (folder / f'{flag}.txt').write_text(','.join('1' if i == 4 else '0' for i in range(12)))


def trackingnet(root):
    for part, name in ((0, 'aB-1_0'), (3, 'cD_1')):
        boxes = video(root / f'TRAIN_{part}' / 'frames' / name, [f'{i}.jpg' for i in range(12)], part)
        (root / f'TRAIN_{part}' / 'anno').mkdir()
        lines(root / f'TRAIN_{part}' / 'anno' / f'{name}.txt', boxes)


def got10k(root):
    names = [f'GOT-10k_Train_{i:06d}' for i in (1, 2)]
    for seed, name in enumerate(names):
        folder = root / 'train' / name
        boxes = video(folder, [f'{i + 1:08d}.jpg' for i in range(12)], seed)
        lines(folder / 'groundtruth.txt', [[f'{v:.4f}' for v in box] for box in boxes])
        (folder / 'cover.label').write_text('\n'.join('0' if i == 4 else '8' for i in range(12)))
        (folder / 'absence.label').write_text('\n'.join('1' if i == 4 else '0' for i in range(12)))
        (folder / 'meta_info.ini').write_text('[METAINFO]\nresolution: (480, 360)\n')
    (root / 'train' / 'list.txt').write_text('\n'.join(names))


def coco(root):
    images, annotations = [], []
    (root / 'train2017').mkdir(parents=True)
    for i in range(4):
        box = (100 + 20 * i, 120, 60, 40)
        image = scene(box, i)
        shape = [(20, 0), (40, 0), (60, 14), (60, 26), (40, 40), (20, 40), (0, 26), (0, 14)]
        corner = np.array(shape) + box[:2]
        image[box[1]:box[1] + 40, box[0]:box[0] + 60] = 120
        cv2.fillPoly(image, [corner], RED)
        cv2.imwrite(str(root / 'train2017' / f'{i:012d}.jpg'), image, (cv2.IMWRITE_JPEG_QUALITY, 95))
        images.append({'id': i, 'file_name': f'{i:012d}.jpg'})
        annotations.append({'id': i, 'image_id': i, 'iscrowd': 0, 'bbox': list(map(float, box)), 'category_id': 7,
                            'segmentation': [corner.flatten().astype(float).tolist()]})
    annotations += [{'id': 9, 'image_id': 0, 'iscrowd': 1, 'bbox': [0, 0, 90, 90], 'category_id': 7,
                     'segmentation': {'counts': [], 'size': [360, 480]}},
                    {'id': 10, 'image_id': 1, 'iscrowd': 0, 'bbox': [5, 5, 4, 4], 'category_id': 7, 'segmentation': []}]
    (root / 'annotations').mkdir()
    (root / 'annotations' / 'instances_train2017.json').write_text(json.dumps(
        {'images': images, 'annotations': annotations, 'categories': [{'id': 7, 'name': 'kite'}]}))


def folders(root):
    for seed, name in enumerate(('a', 'b')):
        boxes = video(root / 'mine' / name / 'img', [f'{i:03d}.jpg' for i in range(12)], seed)
        lines(root / 'mine' / name / 'groundtruth.txt', [('nan',) * 4 if i == 4 else b for i, b in enumerate(boxes)])


SETS = {'lasot': lasot, 'trackingnet': trackingnet, 'got10k': got10k, 'coco': coco, 'folders': folders}


def rows_of(folder):
    return [json.loads(line) for path in sorted(folder.glob('*.jsonl')) for line in path.read_text().splitlines()]


@pytest.mark.parametrize('name', SETS)
def test_a_published_layout_becomes_shards_whose_boxes_hold_the_object(name, tmp_path):
    SETS[name](tmp_path / 'set')
    count = pack(name, tmp_path / 'set', tmp_path / 'out', 12, gap=8)
    rows = rows_of(tmp_path / 'out')
    assert len(rows) == count == (4 if name == 'coco' else 6 if name == 'lasot' else 12)
    with tarfile.open(tmp_path / 'out' / f'{name}-000.tar') as archive:
        for row in rows:
            image = cv2.imdecode(np.frombuffer(archive.extractfile(row['file']).read(), np.uint8), cv2.IMREAD_COLOR)
            assert list(image.shape[1::-1]) == row['size'] and max(row['size']) <= 320
            y, x = np.nonzero((image[..., 2] > 190) & (image[..., 1] < 90))
            (box,) = (item['xywh'] for item in row['objects'])
            np.testing.assert_allclose([box[0], box[1], box[0] + box[2], box[1] + box[3]],
                                       [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=2)
            assert max(row['size']) >= 4 * np.sqrt(box[2] * box[3])     # the surroundings are there
            if name == 'coco':
                mask = cv2.imdecode(np.frombuffer(archive.extractfile(row['mask']).read(), np.uint8), 0) > 0
                red = (image[..., 2] > 190) & (image[..., 1] < 90)
                assert (mask & red).sum() / (mask | red).sum() > 0.9
                assert row['objects'][0]['label'] == 'kite' and 'track' not in row
            else:
                assert row['frame'] != 4 or name == 'trackingnet'       # the object is absent there
    if name == 'lasot':
        assert {row['track'] for row in rows} == {'cat-2'}
    elif name != 'coco':
        assert len({row['track'] for row in rows}) == 2
        for track in {row['track'] for row in rows}:
            frames = [row['frame'] for row in rows if row['track'] == track]
            assert len(frames) == 6 and max(frames) - min(frames) <= 8
    bank = load_bank(tmp_path / 'out')
    assert len(bank.pictures) == count == len(bank.track)
    assert all((picture.mask is not None) == (name == 'coco') for picture in bank.pictures)
    with pytest.raises(FileExistsError, match=name):
        pack(name, tmp_path / 'set', tmp_path / 'out', 12)


def test_the_frames_of_a_video_are_one_track(tmp_path):
    folders(tmp_path / 'set')
    pack('folders', tmp_path / 'set', tmp_path / 'out', 200, gap=11)
    bank = load_bank(tmp_path / 'out')
    assert bank.first.all() and len(set(bank.track)) == 2
    pairs = PairSampler(bank, bank.first).sample(40, np.random.default_rng(0))
    assert set(pairs.track) == set(bank.track)


@pytest.mark.parametrize('name', SETS)
def test_a_missing_set_is_one_sentence(name, tmp_path, capsys):
    assert cli.main(['data', 'pack', name, str(tmp_path / 'absent'), '--output', str(tmp_path / 'out')]) == 2
    assert 'absent' in capsys.readouterr().err
    (tmp_path / 'empty').mkdir()
    assert cli.main(['data', 'pack', name, str(tmp_path / 'empty'), '--output', str(tmp_path / 'out')]) == 2
    assert 'expected' in capsys.readouterr().err.splitlines()[0]
    assert not (tmp_path / 'out').exists()


def test_broken_annotations_are_one_sentence(tmp_path):
    coco(tmp_path / 'coco')
    (tmp_path / 'coco' / 'annotations' / 'instances_train2017.json').write_text('{"images": []')
    with pytest.raises(ValueError, match='COCO annotation'):
        pack('coco', tmp_path / 'coco', tmp_path / 'out', 4)
    got10k(tmp_path / 'got')
    (tmp_path / 'got' / 'train' / 'GOT-10k_Train_000001' / '00000003.jpg').unlink()
    with pytest.raises(ValueError, match='one line a frame'):
        pack('got10k', tmp_path / 'got', tmp_path / 'out', 12)


def test_the_commands_pack_and_show(tmp_path, capsys):
    folders(tmp_path / 'set')
    assert cli.main(['data', 'pack', 'folders', str(tmp_path / 'set'), '--output', str(tmp_path / 'out'),
                     '--images', '12', '--threads', '1']) == 0
    assert '12 images' in capsys.readouterr().out
    assert cli.main(['data', 'show', str(tmp_path / 'out'), '--output', str(tmp_path / 'sheet.png'), '--pairs', '5',
                     '--columns', '2']) == 0
    assert cv2.imread(str(tmp_path / 'sheet.png')).shape == (3 * 261, 2 * 390, 3)


def test_no_pair_and_no_crossed_pair_of_one_object_counts_as_different(tmp_path):
    """Two videos only: half of the neighbours in a batch show one object."""
    folders(tmp_path / 'set')
    pack('folders', tmp_path / 'set', tmp_path / 'out', 24)
    bank = load_bank(tmp_path / 'out')
    draws = PairSampler(bank, bank.first, dataclasses.replace(Augmentation(), negative=1.0))
    pairs = draws.sample(40, np.random.default_rng(0))
    assert pairs.negative.any() and not pairs.negative.all()
