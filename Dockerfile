# The tracker node on the official image of ROS 2 Jazzy.
#   docker build -t cract .
#   docker run --rm --net=host --ipc=host cract ros2 launch cract_ros tracker.launch.py image:=/camera/image_raw
# --ipc=host: images go through /dev/shm, of which a container has too little by itself.
FROM ros:jazzy-ros-base

# for CUDA: --build-arg RUNTIME=torch
ARG RUNTIME="onnx onnxruntime openvino"

WORKDIR /ws
COPY . src/cract_ros
ENV PIP_BREAK_SYSTEM_PACKAGES=1
# OpenCV and NumPy are Ubuntu's: those of PyPI do not go with its ROS packages. Hence pip comes after rosdep.
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-pip \
    && rosdep update --rosdistro jazzy \
    && rosdep install -y --from-paths src --ignore-src --dependency-types buildtool --dependency-types build \
        --dependency-types exec \
    && pip install --no-cache-dir threadpoolctl $RUNTIME "numpy==$(python3 -c 'import numpy; print(numpy.__version__)')" \
    && . /opt/ros/jazzy/setup.sh \
    && colcon build --packages-select cract_ros \
    && rm -rf build log /var/lib/apt/lists/*

# ros2 launch ends its nodes on SIGINT, but leaves them behind on SIGTERM
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/bash", "-c", "source /ws/install/setup.bash && exec \"$@\"", "--"]
CMD ["ros2", "launch", "cract_ros", "tracker.launch.py"]
