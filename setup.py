"""Packaging for pip and for colcon (ament_python). Metadata parses on setuptools 65."""

from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "embodied_vision"
NODES = (
    "arm",
    "camera",
    "composed",
    "encoder",
    "learner",
    "markers",
    "monitor",
    "policy",
    "recorder",
    "replay",
    "task",
)

ROS = [
    "ros-rclpy",
    "ros-sensor-msgs",
    "ros-geometry-msgs",
    "ros-trajectory-msgs",
    "ros-std-srvs",
    "ros-std-msgs",
    "ros-lifecycle-msgs",
    "ros-action-msgs",
    "ros-diagnostic-msgs",
    "ros-visualization-msgs",
    "ros-rmw-fastrtps-cpp",
]
ARM = ["coal>=3", "pin>=3", "ruckig>=0.14"]
SIM = ["pybullet>=3.2.6", *ARM]
HF = ["transformers>=4.56"]
ADAPTERS = [*HF, "peft>=0.18"]
ONNX = ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5"]
OPENVINO = ["openvino>=2025.0"]
CAMERA = ["opencv-python-headless>=4.9"]
VIZ = ["pygame>=2.5", "matplotlib>=3.8", "rerun-sdk>=0.26"]
EXCHANGE = ["av>=14", "h5py>=3.10", "mcap>=1.2", "pyarrow>=17", "rosbags>=0.10"]
REMOTE = ["obstore>=0.6"]
RAY = ["ray[client]>=2.40"]
RL = ["stable-baselines3>=2.7"]
LEARN = ["river>=0.22"]
TRAIN = ["tensorboard>=2.16", *CAMERA]
DEV = [
    "build",
    "hypothesis",
    "moto[server]",
    "mypy",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "ruff",
    "scikit-image",
    "types-PyYAML",
]

setup(
    name=PACKAGE,
    version="0.1.0",
    description="A control stack for robot arms that see: encoder, policy, guard, logs, continual learning.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=[PACKAGE, PACKAGE + ".*", PACKAGE + "_sim", PACKAGE + "_sim.*"]),
    package_data={
        PACKAGE: [
            "py.typed",
            "demo/*.j2",
            "launching/*.json",
            "calibrating/*.j2",
            "encoders/*.j2",
            "learning/*.j2",
            "robots/*",
            "robots/tools/*",
            "config/*",
            "checkpoints/*/*",
        ],
        PACKAGE + "_sim": ["py.typed"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/" + PACKAGE]),
        ("share/" + PACKAGE, ["package.xml"]),
        ("share/" + PACKAGE + "/launch", sorted(glob("launch/*.launch.py"))),
        ("share/" + PACKAGE + "/config", sorted(glob("config/*"))),
    ],
    zip_safe=False,
    install_requires=[
        "google-crc32c>=1.5",
        "gymnasium>=1.0",
        "imagecodecs>=2024.1",
        "jinja2>=3",
        "numcodecs>=0.15",
        "numpy>=1.26",
        "pillow>=10",
        "pyyaml>=6",
        "rich>=13",
        "safetensors>=0.4",
        "scipy>=1.11",
        "torch>=2.4",
        "typer>=0.12",
        "zarr>=3.1",
    ],
    extras_require={
        "ros": ROS,
        "arm": ARM,
        "sim": SIM,
        "hf": HF,
        "adapters": ADAPTERS,
        "onnx": ONNX,
        "openvino": OPENVINO,
        "ray": RAY,
        "train": TRAIN,
        "viz": VIZ,
        "exchange": EXCHANGE,
        "remote": REMOTE,
        "camera": CAMERA,
        "rl": RL,
        "learn": LEARN,
        "all": [*ROS, *SIM, *ADAPTERS, *ONNX, *OPENVINO, *RAY, *TRAIN, *RL, *LEARN, *VIZ, *EXCHANGE, *REMOTE],
        "dev": DEV,
    },
    entry_points={
        "console_scripts": [
            "embodied-vision = embodied_vision.cli.main:main",
            *(f"{node}_node = embodied_vision.nodes.{node}:main" for node in NODES),
            "cell_node = embodied_vision_sim.node:main",
            "driver_node = embodied_vision_sim.driver_node:main",
        ],
        "zarr.codecs": [
            "embodied_vision.jpeg = embodied_vision.episodes.zarr_codecs:JpegCodec",
            "embodied_vision.htj2k = embodied_vision.episodes.zarr_codecs:Htj2kCodec",
        ],
    },
)
