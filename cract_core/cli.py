"""The command `cract`. Each of its commands is a module of `commands`, imported when it is called.

What the user got wrong is one sentence on stderr and exit status 2; `--traceback` shows where it arose.
"""
from __future__ import annotations

import argparse
import importlib
import io
import os
import sys

from . import options
from .commands import COMMANDS

DESCRIPTION = """\
Follow one object through a video, given its box in the first frame.

CRACT is a Siamese tracker with cascaded regression and an online classifier: a region proposal network finds
candidates near the last place, a second stage refines their boxes, and two classifiers, one learned offline and one
trained on the target while tracking, decide which of them is the target and whether it is there at all."""

EXAMPLES = """\
examples:
  cract track flight.mp4 --box 312,190,64,40 --output tracked.mp4
      follow the object whose box in the first frame has its top-left corner at (312, 190), 64 wide and 40 high
  cract track frames/ --box 312,190,64,40 --results boxes.txt --num-proposals 16
      the same on a folder of images, in natural order of their names; one line x,y,w,h a frame
  cract track 0 --box 280,200,80,80 --output live.mp4 --frames 300
      300 frames of the first camera
  cract eval benchmark/ --only Car4,Jogging-1 --json figures.json
      measure on annotated sequences
  cract eval benchmark/ --tracker nano --peers models/
      the same with OpenCV's TrackerNano
  cract eval LaSOT/ --benchmark lasot --results results/
      measure on a public benchmark, and write the boxes in its own form
  cract eval benchmark/ --tracker cract,nano,kcf --peers models/ --protocol ope,absence,streaming --report out/
      the same beside two peers, with absences and against a camera's clock, as one HTML page
  cract bag flight/ --topic /camera/image_raw --box 312,190,64,40 --output flight_tracked/
      follow the object through a ROS 2 bag, and write its detections as a bag
  cract synth scenes/made/clip0 --seed 7
      render an annotated aerial scene

Boxes are x,y,w,h in pixels, 0-based, from the top-left corner of the frame; fractions are allowed.
Exit status: 0 done and complete, 2 wrong input, or a part of it could not be read: what could is written, and the
reason is on stderr; 130 interrupted. Nothing is written over an input or into a folder that is one; a result takes its
place when it is whole."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name) and return the exit status."""
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'SILENT')       # what OpenCV and FFmpeg cannot read
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')     # is said once, by us
    argv = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')     # names of files may be no text
    try:
        args = parse(argv)
        options.check_paths(args)
        return args.run(args)
    except KeyboardInterrupt:
        return 130
    except (ModuleNotFoundError, ValueError, OSError) as error:
        if '--traceback' in argv or isinstance(error, ModuleNotFoundError) and (error.name or '').startswith(__package__):
            raise
        command = next(word for word in argv if word in COMMANDS)
        print(f'cract {command}: {_sentence(error)}', file=sys.stderr)
        return 2


def parse(argv: list[str]) -> argparse.Namespace:
    """The arguments of a command; `run` among them is what it does with them. SystemExit for wrong ones and for --help."""
    node = '' if options.node_installed() else '\nThe ROS 2 node is not installed: without ROS 2 it is left out.'
    parser = options.Parser(prog='cract', description=DESCRIPTION, epilog=EXAMPLES + node,
                            formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--traceback', action='store_true', help='on an error, show where in the program it arose')
    commands = parser.add_subparsers(title='commands', dest='command', required=True, metavar='COMMAND')
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name in argv:    # the other modules stay unread
            chosen = importlib.import_module(f'.commands.{module}', __package__)
            command.description = chosen.DESCRIPTION
            chosen.add_arguments(command)
            command.set_defaults(run=chosen.run)
    return parser.parse_args(argv)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f'{error.filename}: {error.strerror}'
    if isinstance(error, ModuleNotFoundError):
        return f'this needs the package {error.name}, which is not installed'
    return ' '.join(str(error).split())


if __name__ == '__main__':
    sys.exit(main())
