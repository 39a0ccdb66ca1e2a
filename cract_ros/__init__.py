"""ROS 2 side of the tracker.

The generated interface code (`cract_ros.srv`) is installed in a package of the same name. When this directory is
imported from a source checkout, `extend_path` adds the installed half to it.
"""
from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
