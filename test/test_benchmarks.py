"""Readers of the benchmarks on miniatures of their true layouts, written here; and the forms of their results."""
from __future__ import annotations

import shutil
import zipfile

import cv2
import numpy as np
import pytest

from cract_core import cli
from cract_core.evaluation import benchmark_tables as tables
from cract_core.evaluation import submissions
from cract_core.evaluation.benchmarks import BENCHMARKS, polygon, polygon_to_box, read_benchmark
from cract_core.evaluation.runner import Run, mean_figures, run_sequence, summarize
from cract_core.evaluation.vot import FAILURE, SKIPPED, START, ResetRun, read_trajectory


def write_frames(folder, numbers, name='{:04d}.jpg', size=(32, 24)):
    folder.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode('.jpg', np.full((size[1], size[0], 3), 90, np.uint8))[1].tobytes()
    for number in numbers:
        (folder / name.format(number)).write_bytes(encoded)


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n')


def write_otb(root):
    write_frames(root / 'David' / 'img', range(1, 772))                 # more frames than are annotated
    write_lines(root / 'David' / 'groundtruth_rect.txt', ['129,80,64,78'] * 470 + ['140,90,60,70'])
    write_frames(root / 'Football1' / 'img', range(1, 80))
    write_lines(root / 'Football1' / 'groundtruth_rect.txt', ['153\t105\t26\t43'] * 74)
    write_frames(root / 'Jogging' / 'img', range(1, 4))
    write_lines(root / 'Jogging' / 'groundtruth_rect.1.txt', ['111,98,25,101'] * 3)
    write_lines(root / 'Jogging' / 'groundtruth_rect.2.txt', ['180 80 37 114'] * 3)
    write_frames(root / 'BlurCar3' / 'img', range(3, 6))                # its first frame has the number 3
    write_lines(root / 'BlurCar3' / 'groundtruth_rect.txt', ['10, 20, 5, 6', '11,20,5,6', '12  20 5,6'])
    write_frames(root / 'Human4' / 'img', range(1, 3))
    write_lines(root / 'Human4' / 'groundtruth_rect.2.txt', ['9,9,3,3'] * 2)
    (root / 'Human4' / 'groundtruth_rect.1.txt').write_text('')         # as published
    write_frames(root / 'Board' / 'img', range(1, 3), '{:05d}.jpg')     # five digits
    write_lines(root / 'Board' / 'groundtruth_rect.txt', ['5,5,9,9'] * 2)
    (root / 'notes').mkdir()


def test_otb_ranges_targets_separators_and_origin(tmp_path):
    write_otb(tmp_path)
    read = {sequence.name: sequence for sequence in read_benchmark('otb2015', tmp_path)}
    assert list(read) == ['BlurCar3', 'Board', 'David', 'Football1', 'Human4-2', 'Jogging-1', 'Jogging-2']
    david = read['David']
    assert [path.name for path in (david.images[0], david.images[-1])] == ['0300.jpg', '0770.jpg']
    assert len(david.images) == len(david.truth) == 471
    assert david.truth[0].tolist() == [128, 79, 64, 78] and david.truth[-1].tolist() == [139, 89, 60, 70]
    assert len(read['Football1'].images) == 74 and read['Football1'].truth[5].tolist() == [152, 104, 26, 43]
    assert read['Jogging-1'].truth[0].tolist() == [110, 97, 25, 101]
    assert read['Jogging-2'].truth[2].tolist() == [179, 79, 37, 114]
    assert read['Jogging-2'].images == read['Jogging-1'].images
    assert read['BlurCar3'].truth.tolist() == [[9, 19, 5, 6], [10, 19, 5, 6], [11, 19, 5, 6]]
    assert 'MB' in read['BlurCar3'].attributes and not read['David'].absent_counts
    assert [one.name for one in read_benchmark('otb2015', tmp_path, only=('Jogging-2', 'David'))] == [
        'David', 'Jogging-2']
    assert len(read_benchmark('otb2015', tmp_path, limit=2)) == 2


def test_the_tables_are_complete():
    assert len(tables.OTB_ATTRIBUTES) == BENCHMARKS['otb2015'].total == 100
    assert {name.split('-')[0] for name in tables.OTB_ATTRIBUTES if '-' in name} == {'Human4', 'Jogging', 'Skating2'}
    assert {name: last - first + 1 for name, (first, last) in tables.OTB_RANGES.items()} == dict(
        David=471, Diving=215, Football1=74, Freeman3=460, Freeman4=283, Tiger1=349)
    assert len(tables.UAV123_RANGES) == BENCHMARKS['uav123'].total == 123
    assert sum(last - first + 1 for _, first, last in tables.UAV123_RANGES.values()) == 112578  # as its paper says
    assert len(set(tables.LASOT_TEST)) == BENCHMARKS['lasot'].total == 280
    assert len({name.split('-')[0] for name in tables.LASOT_TEST}) == 70


def write_uav(root):
    write_frames(root / 'data_seq' / 'UAV123' / 'bird1', range(1, 2438), '{:06d}.jpg')
    for name, first, last in (('bird1_1', 1, 253), ('bird1_2', 775, 1477)):
        lines = ['10,20,5,6'] * (last - first + 1)
        lines[3] = 'NaN,NaN,NaN,NaN'
        write_lines(root / 'anno' / 'UAV123' / f'{name}.txt', lines)
    write_lines(root / 'anno' / 'UAV123' / 'att' / 'bird1_1.txt', ['1,0,0,1,1,0,0,0,0,0,1,0'])


def test_uav123_sequences_are_ranges_of_a_folder(tmp_path):
    write_uav(tmp_path)
    first, second = read_benchmark('uav123', tmp_path)
    assert (first.name, second.name) == ('bird1_1', 'bird1_2')
    assert [path.name for path in (second.images[0], second.images[-1])] == ['000775.jpg', '001477.jpg']
    assert np.isnan(first.truth[3]).all() and first.truth[4].tolist() == [10, 20, 5, 6]
    assert first.attributes == ('SV', 'FM', 'FOC', 'CM') and second.attributes == ()
    perfect = Run(np.tile([10.0, 20, 5, 6], (253, 1)), np.ones(253), ('tracking',) * 253, 0.01, np.full(252, 0.01))
    assert summarize(perfect, first)['auc'] == pytest.approx(20 / 21 * 252 / 253)  # the absent frame is a failure
    (tmp_path / 'data_seq' / 'UAV123' / 'bird1' / '000900.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='no frame 900 in .*bird1: expected the frames 775 to 1477'):
        read_benchmark('uav123', tmp_path)


def write_nfs(root):
    write_frames(root / 'bee' / '30' / 'bee', range(1, 5), '{:05d}.jpg')
    write_lines(root / 'bee' / '30' / 'bee.txt', [     # 240 fps: one line in eight is a frame
        f'0 {100 + i} 50 {120 + i} 80 {i + 1} {int(i == 16)} 0 {int(i % 8 > 0)} "a bee"' for i in range(31)])
    write_frames(root / 'dog_1' / '30' / 'dog_1', range(1, 4), '{:05d}.jpg')
    write_lines(root / 'dog_1' / '30' / 'dog_1.txt', [f'0 10 20 15 30 {i} 0 0 0 "dog"' for i in range(1, 5)])


def test_nfs_annotation_in_corners_of_every_eighth_frame(tmp_path):
    write_nfs(tmp_path)
    bee, dog = read_benchmark('nfs30', tmp_path)
    assert bee.truth[[0, 1, 3]].tolist() == [[100, 50, 20, 30], [108, 50, 20, 30], [124, 50, 20, 30]]
    assert np.isnan(bee.truth[2]).all() and len(bee.images) == 4        # marked as lost
    assert dog.truth.tolist() == [[10, 20, 5, 10]] * 3                  # one line too many is cut


def write_vot(root):
    write_lines(root / 'list.txt', ['ants1', 'conduction1'])
    write_frames(root / 'ants1', range(1, 4), '{:08d}.jpg')             # MATLAB toolkit: beside the annotation
    write_lines(root / 'ants1' / 'groundtruth.txt', ['10,10,20,10,20,30,10,30', '10,0,20,10,10,20,0,10',
                                                     '11.5,12.5,21.5,12.5,21.5,32.5,11.5,32.5'])
    write_lines(root / 'ants1' / 'occlusion.tag', ['0', '1', '0'])
    write_lines(root / 'ants1' / 'size_change.tag', ['0', '0', '0'])
    write_frames(root / 'conduction1' / 'color', range(1, 3), '{:08d}.jpg')   # Python toolkit
    write_lines(root / 'conduction1' / 'groundtruth.txt', ['1,2,3,4'] * 2)


def test_vot_polygons_and_boxes(tmp_path):
    write_vot(tmp_path)
    ants, conduction = read_benchmark('vot2018', tmp_path)
    assert ants.regions[1].tolist() == [[10, 0], [20, 10], [10, 20], [0, 10]] and ants.attributes == ('occlusion',)
    assert ants.truth[0] == pytest.approx([10, 10, 10, 20])
    side = np.sqrt(200)                                                 # the area of the square on its corner
    assert ants.truth[1] == pytest.approx([10 - side / 2, 10 - side / 2, side, side])
    assert conduction.truth.tolist() == [[1, 2, 3, 4]] * 2
    assert conduction.regions[0].tolist() == [[1, 2], [4, 2], [4, 6], [1, 6]]
    moved = tmp_path / 'workspace'
    moved.mkdir()
    shutil.copytree(tmp_path / 'ants1', moved / 'sequences' / 'ants1')
    write_lines(moved / 'sequences' / 'list.txt', ['ants1'])
    assert [one.name for one in read_benchmark('vot2018', moved)] == ['ants1']   # a workspace of the toolkit


def test_a_box_and_its_polygon_are_the_same():
    assert polygon_to_box(polygon([3.5, 4, 10, 20])) == pytest.approx([3.5, 4, 10, 20])
    assert np.isnan(polygon_to_box(polygon([np.nan] * 8))).all()


def write_trackingnet(root):
    write_frames(root / 'TEST' / 'frames' / 'abc_0', range(11), '{}.jpg')
    write_lines(root / 'TEST' / 'anno' / 'abc_0.txt', ['5.0,6.0,7.0,8.0'])


def write_got10k(root):
    for part, name in (('val', 'GOT-10k_Val_000001'), ('test', 'GOT-10k_Test_000001')):
        write_lines(root / part / 'list.txt', [name])
        write_frames(root / part / name, range(1, 5), '{:08d}.jpg')
    val, test = root / 'val' / 'GOT-10k_Val_000001', root / 'test' / 'GOT-10k_Test_000001'
    write_lines(val / 'groundtruth.txt', ['1.0000,2.0000,20.0000,10.0000'] * 3 + ['22.0000,2.0000,20.0000,10.0000'])
    write_lines(val / 'cover.label', ['8', '0', '5', '8'])
    write_lines(val / 'absence.label', ['0', '1', '0', '0'])
    write_lines(val / 'cut_by_image.label', ['0'] * 4)
    write_lines(val / 'meta_info.ini', ['[METAINFO]', 'url: https://example.org', 'resolution: (32, 24)'])
    write_lines(test / 'groundtruth.txt', ['1.0000,2.0000,20.0000,10.0000'])


@pytest.mark.parametrize('name, write, frames', [
    ('trackingnet', write_trackingnet, 11), ('got10k-test', write_got10k, 4)])
def test_a_withheld_truth_gives_no_accuracy(tmp_path, name, write, frames):
    write(tmp_path)
    sequence, = read_benchmark(name, tmp_path)
    assert not sequence.annotated and len(sequence.images) == len(sequence.truth) == frames
    assert np.isfinite(sequence.truth[0]).all() and np.isnan(sequence.truth[1:]).all()
    assert [int(path.stem) for path in sequence.images] == sorted(int(path.stem) for path in sequence.images)
    run = run_of(np.tile(sequence.truth[0], (frames, 1)))
    for figures in (summarize(run, sequence), mean_figures([summarize(run, sequence)], [run])):
        assert figures['auc'] is None and figures['ao'] is None and figures['p50_ms'] == pytest.approx(10)


def run_of(boxes):
    return Run(np.array(boxes, float), np.ones(len(boxes)), ('tracking',) * len(boxes), 0.02,
               np.full(len(boxes) - 1, 0.01))


def test_got10k_leaves_out_covered_frames_and_cuts_at_the_border(tmp_path):
    write_got10k(tmp_path)
    sequence, = read_benchmark('got10k-val', tmp_path)
    assert np.isnan(sequence.truth).any(axis=1).tolist() == [False, True, False, False]
    run = run_of([[1, 2, 20, 10], [0, 0, 1, 1], [1, 2, 10, 10], [22, 2, 40, 10]])
    figures = summarize(run, sequence)
    assert figures['counted'] == 2                          # not the first frame, not the covered one
    assert figures['ao'] == pytest.approx((0.5 + 1) / 2)    # the last box is right inside of the frame
    assert (figures['sr50'], figures['sr75']) == (0.5, 0.5)
    other = dict(figures, ao=0.2, sr50=0.0, sr75=0.0, counted=6)
    assert mean_figures([figures, other], [run, run])['ao'] == pytest.approx((0.75 * 2 + 0.2 * 6) / 8)


def write_lasot(root):
    folder = root / 'airplane' / 'airplane-9'
    write_frames(folder / 'img', range(1, 5), '{:08d}.jpg')
    write_lines(folder / 'groundtruth.txt', ['367,101,41,16', '0,0,0,0', '368,101,41,16', '369,101,41,16'])
    (folder / 'full_occlusion.txt').write_text('0,0,1,0')
    (folder / 'out_of_view.txt').write_text('0,1,0,0')
    write_frames(root / 'airplane' / 'airplane-2' / 'img', range(1, 3))     # not in the test set


def test_lasot_test_videos_with_their_flags(tmp_path):
    write_lasot(tmp_path)
    sequence, = read_benchmark('lasot', tmp_path)
    assert sequence.name == 'airplane-9' and not sequence.absent_counts
    assert np.isnan(sequence.truth).any(axis=1).tolist() == [False, True, True, False]
    assert sequence.truth[3].tolist() == [369, 101, 41, 16]


WRITERS = {'otb2015': write_otb, 'uav123': write_uav, 'nfs30': write_nfs, 'vot2018': write_vot,
           'trackingnet': write_trackingnet, 'got10k-val': write_got10k, 'got10k-test': write_got10k,
           'lasot': write_lasot}


@pytest.mark.parametrize('name', WRITERS)
def test_a_wrong_root_says_what_was_expected(tmp_path, name):
    with pytest.raises(FileNotFoundError, match='expected'):
        read_benchmark(name, tmp_path)
    with pytest.raises(FileNotFoundError, match='no folder .*nowhere: expected .* as ROOT/'):
        read_benchmark(name, tmp_path / 'nowhere')
    WRITERS[name](tmp_path)
    with pytest.raises(ValueError, match="no sequence 'nothing' of .*; there are "):
        read_benchmark(name, tmp_path, only=('nothing',))


@pytest.mark.parametrize('name, path, content, message', [
    ('otb2015', 'Jogging/groundtruth_rect.2.txt', None, 'no file .*rect.2.txt: expected lines of x,y,w,h'),
    ('otb2015', 'Jogging/groundtruth_rect.2.txt', '1,2,3,4', 'rect.2.txt has 1 lines and .*img 3 frames'),
    ('otb2015', 'Football1/groundtruth_rect.txt', '1,2,3', 'rect.txt, line 1: expected x,y,w,h, got 3 numbers'),
    ('otb2015', 'Board/groundtruth_rect.txt', '', 'rect.txt is empty'),
    ('uav123', 'anno/UAV123/bird1_1.txt', 'one,two,3,4', "line 1: expected x,y,w,h, got 'one,two,3,4'"),
    ('nfs30', 'bee/30/bee.txt', '0 1 2 3\n', 'bee.txt, line 1: expected id left top right bottom'),
    ('vot2018', 'list.txt', None, 'no file .*list.txt: expected the names of the sequences'),
    ('vot2018', 'list.txt', 'ants1 zebra', 'no file .*zebra/groundtruth.txt'),
    ('vot2018', 'ants1/groundtruth.txt', '1,2,3,4,5', 'line 1: expected a polygon .* got 5 numbers'),
    ('trackingnet', 'TEST/frames/abc_0', None, 'no folder .*abc_0'),
    ('got10k-val', 'val/GOT-10k_Val_000001/cover.label', '8\n8\n', '4 lines in groundtruth.txt and 2 in cover.label'),
    ('got10k-val', 'val/GOT-10k_Val_000001/meta_info.ini', 'nothing', 'meta_info.ini: expected a line "resolution'),
    ('got10k-test', 'test/list.txt', None, 'no file .*list.txt'),
    ('lasot', 'airplane/airplane-9/out_of_view.txt', None, 'no file .*out_of_view.txt: expected'),
    ('lasot', 'airplane/airplane-9/full_occlusion.txt', '0,1', '4 lines in groundtruth.txt and 2 flags in full_occl'),
])
def test_a_broken_benchmark_is_one_sentence(tmp_path, name, path, content, message):
    WRITERS[name](tmp_path)
    path = tmp_path / path
    if content is not None:
        path.write_text(content)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        read_benchmark(name, tmp_path)
    assert '\n' not in str(caught.value)


def test_results_in_the_form_of_each_benchmark(tmp_path):
    run = run_of([[1, 2, 3, 4], [2.5, 3, 3, 4]])
    path = submissions.write_result(tmp_path, BENCHMARKS['otb2015'], 'us', 'Jogging-2', run)
    assert path == tmp_path / 'us' / 'Jogging-2.txt'
    assert np.loadtxt(path, delimiter=',').tolist() == [[2, 3, 3, 4], [3.5, 4, 3, 4]]   # counted from 1
    path = submissions.write_result(tmp_path, BENCHMARKS['lasot'], 'us', 'zebra-10', run)
    assert np.loadtxt(path, delimiter=',').tolist() == run.boxes.tolist()

    path = submissions.write_result(tmp_path / 'got', BENCHMARKS['got10k-test'], 'us', 'GOT-10k_Test_000001', run)
    assert path.relative_to(tmp_path / 'got').as_posix() == 'us/GOT-10k_Test_000001/GOT-10k_Test_000001_001.txt'
    assert np.loadtxt(path.with_name('GOT-10k_Test_000001_time.txt')).tolist() == [0.02, 0.01]
    with zipfile.ZipFile(submissions.write_archive(tmp_path / 'got', 'us')) as archive:
        assert archive.namelist() == ['GOT-10k_Test_000001/GOT-10k_Test_000001_001.txt',
                                      'GOT-10k_Test_000001/GOT-10k_Test_000001_time.txt']
        assert archive.read(archive.namelist()[0]) == path.read_bytes()

    reset = ResetRun([START, np.array([1.0, 2, 3, 4]), FAILURE, SKIPPED], np.array([np.nan, 1, np.nan, np.nan]),
                     np.array([np.nan, 0.5, 0.1, np.nan]), np.array([0.03]), np.array([0.01, 0.02]))
    path = submissions.write_result(tmp_path, BENCHMARKS['vot2018'], 'us', 'ants1', reset)
    assert path == tmp_path / 'us' / 'baseline' / 'ants1' / 'ants1_001.txt'
    assert path.read_text().splitlines() == ['1', '1.0000,2.0000,3.0000,4.0000', '2', '0']
    assert np.loadtxt(path.with_name('ants1_001_time.value')).tolist() == [0.03, 0.01, 0.02, 0]
    assert read_trajectory(path)[1].tolist() == [1, 2, 3, 4]


def test_the_command_runs_a_benchmark_and_writes_what_is_handed_in(tmp_path, capsys):
    write_trackingnet(tmp_path / 'data')
    assert cli.main(['eval', str(tmp_path / 'data'), '--benchmark', 'trackingnet', '--tracker', 'kcf', '--threads', '1',
                     '--results', str(tmp_path / 'out')]) == 0
    output = capsys.readouterr().out
    assert '1 of the 511 sequences of TrackingNet test: no figure of the benchmark' in output
    with zipfile.ZipFile(tmp_path / 'out' / 'kcf.zip') as archive:
        assert archive.namelist() == ['abc_0.txt'] and len(archive.read('abc_0.txt').splitlines()) == 11
    assert cli.main(['eval', str(tmp_path / 'data'), '--benchmark', 'trackingnet', '--tracker', 'kcf',
                     '--protocol', 'absence']) == 2
    assert 'the truth of TrackingNet test is not public' in capsys.readouterr().err


def test_run_sequence_starts_where_the_range_starts(tmp_path):
    write_uav(tmp_path)
    sequence = read_benchmark('uav123', tmp_path, only=('bird1_1',))[0]

    class Still:
        def init(self, frame, box):
            self.box = box

        def update(self, frame):
            from cract_core.tracker import State
            return type('Answer', (), dict(box=self.box, score=0.5, state=State.TRACKING))

    assert run_sequence(Still(), sequence).boxes.tolist() == [[10, 20, 5, 6]] * 253
