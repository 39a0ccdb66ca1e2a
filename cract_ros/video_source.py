"""Pictures of a stream, a camera or a file as a topic: RTSP, HTTP, UDP, a device, a video, a folder of images.

    ros2 run cract_ros video_source --ros-args -p source:=rtsp://10.0.0.2:8554/camera -r image:=/camera/image_raw

A picture is stamped when it arrives. A source that breaks off is opened again, as long as the node runs.
"""
from __future__ import annotations

import math
import threading
import time

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from cract_core.video import FrameSource
from cract_ros import small_nodes
from cract_ros.conversions import from_bgr

THROTTLE = 10.0  # seconds between two reports of one kind

# name -> default, what it is, its range
PARAMETERS = {
    'source': ('', 'URL of a stream (rtsp://, http://, udp://, ...), device (/dev/video0) or index of a camera, video file, '
                   'folder of images, pattern of numbered images (img%04d.jpg)', None),
    'frame_id': ('camera', 'frame of the pictures', None),
    'retry': (2.0, 'seconds until a source that broke off is opened again', (0.1, 3600.0)),
    'rate': (0.0, 'pictures a second of files; 0: their own', (0.0, 1000.0)),
    'loop': (False, 'files: begin again at the end', None),
    'field_of_view': (0.0, 'horizontal, degrees: camera_info of a pinhole camera is published; 0: none', (0.0, 170.0)),
}


class VideoSource(Node):
    """Node `video_source`. ValueError where no source is given."""

    def __init__(self, **kwargs):
        super().__init__('video_source', **kwargs)
        try:
            self._given = small_nodes.declare(self, PARAMETERS)
            if not self._given['source']:
                raise ValueError('say what is to be shown: -p source:=rtsp://...')
        except ValueError:
            super().destroy_node()
            raise
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self._images = self.create_publisher(Image, 'image', newest)
        self._infos = self.create_publisher(CameraInfo, 'camera_info', newest) if self._given['field_of_view'] else None
        self.opened = self.shown = 0   # times that the source was opened, pictures that it gave
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name='video', daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to come: files were shown to their end."""
        return not self._thread.is_alive()

    def destroy_node(self) -> None:
        self._stopped.set()
        self._thread.join(5.0)  # a read of a stream may last longer: its thread ends with the process
        super().destroy_node()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                live = self._show()
            except (OSError, ValueError) as error:
                live = True
                self.get_logger().error(f'{error}; the next attempt follows in {self._given["retry"]:g} s',
                                        throttle_duration_sec=THROTTLE)
            if not live and not self._given['loop']:
                self.get_logger().info(f'{self._given["source"]} is at its end: {self.shown} pictures')
                return
            if live:
                self._stopped.wait(self._given['retry'])

    def _show(self) -> bool:
        """Publish what the source gives until it ends or breaks off; whether it was live."""
        source = FrameSource(self._given['source'])
        if not rclpy.ok(context=self.context):
            return False
        period = 0.0 if source.live else 1 / (self._given['rate'] or source.fps)
        due = time.monotonic()
        try:
            for frame in source:
                if source.given == 1:
                    self.opened += 1
                    self.get_logger().info(f'{self._given["source"]}: {frame.shape[1]} x {frame.shape[0]} pixels')
                if self._stopped.wait(max(due - time.monotonic(), 0) if period else 0):
                    return False
                due = max(due + period, time.monotonic() - period)
                self._publish(frame)
        finally:
            source.close()
        if source.live:
            self.get_logger().warning(f'{source.complaint or "the stream has ended"}: it is opened again')
        return source.live

    def _publish(self, frame) -> None:
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._given['frame_id'])
        self._images.publish(from_bgr(frame, header))
        self.shown += 1
        if self._infos is not None:
            height, width = frame.shape[:2]
            focal = width / 2 / math.tan(math.radians(self._given['field_of_view']) / 2)
            info = CameraInfo(header=header, width=width, height=height, distortion_model='plumb_bob', d=[0.0] * 5)
            info.k = [focal, 0.0, width / 2 - 0.5, 0.0, focal, height / 2 - 0.5, 0.0, 0.0, 1.0]
            info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
            info.p = [focal, 0.0, width / 2 - 0.5, 0.0, 0.0, focal, height / 2 - 0.5, 0.0, 0.0, 0.0, 1.0, 0.0]
            self._infos.publish(info)


def main(args: list[str] | None = None) -> int:
    """Publish until SIGINT or SIGTERM."""
    return small_nodes.run(VideoSource, 'video_source', args)


if __name__ == '__main__':
    raise SystemExit(main())
