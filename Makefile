# Everything stays in this checkout: the environment in .venv, temporary files in .tmp, caches in .cache.
# `make demo` and `make test` do all the set-up themselves.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ROS2_TOOLS ?= $(wildcard ../shared/ros2_tools)

export TMPDIR := $(CURDIR)/.tmp
export MPLCONFIGDIR := $(CURDIR)/.cache/matplotlib
export HF_HOME := $(CURDIR)/.cache/huggingface
export EMBODIED_VISION_CACHE := $(CURDIR)/.cache
export ROS_LOG_DIR := $(CURDIR)/.ros_log
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# A sourced ROS of another Python breaks this environment; `embodied-vision doctor` reports it.
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH RMW_IMPLEMENTATION

.PHONY: setup demo docs test faults lint format clean interpreter bench-recorder bench-real-arm soak bench-ros bench-ros-decisions bench-oracles bench-sim bench-resets bench-grasps bench-policy bench-grasp-ceiling bench-catalogue bench-guard bench-reading results lerobot-env bench-encoder bench-episodes bench-learning bench-poisoned probes lifelong lifelong-stream

setup: $(INSTALLED)

interpreter:
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "Python 3.11 is needed and $(PYTHON) was not found: install python3.11 and python3.11-venv, or name one with 'make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)'"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "Python 3.11 is needed (the newest with a PyBullet wheel) and $(PYTHON) is $$($(PYTHON) --version): install python3.11 and python3.11-venv, or name one with 'make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)'"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module: install python3.11-venv"; exit 2; }

$(INSTALLED): setup.py pyproject.toml constraints.txt | interpreter
	@mkdir -p $(TMPDIR) .cache
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[all,dev]'
	@touch $@

demo: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/embodied-vision demo

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Where tests with real processes stand: not all need be collected for their sake.
SYSTEM = $(sort $(shell grep -rl 'mark\.system' tests --include='test_*.py'))

test: lint
	@mkdir -p $(TMPDIR)
	$(if $(wildcard .venv-lerobot/.installed),EMBODIED_VISION_LEROBOT_PYTHON=$(CURDIR)/.venv-lerobot/bin/python )$(BIN)/pytest -n 2 --dist worksteal -m 'not system' tests
	EMBODIED_VISION_ROS2_TOOLS=$(abspath $(ROS2_TOOLS)) $(BIN)/pytest -n 2 --dist loadfile -m 'system and together' $(SYSTEM)
	EMBODIED_VISION_ROS2_TOOLS=$(abspath $(ROS2_TOOLS)) $(BIN)/pytest -m 'system and not together' $(SYSTEM)

# Every fault of docs/faults.md; prints what was measured beside what is allowed.
faults: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	rm -f $(TMPDIR)/faults.jsonl
	EMBODIED_VISION_FAULTS=all EMBODIED_VISION_FAULT_RESULTS=$(TMPDIR)/faults.jsonl $(BIN)/pytest -m system tests/system/test_faults.py tests/system/test_faults_apart.py; status=$$?; $(BIN)/python -m tests.system.faults_table $(TMPDIR)/faults.jsonl && exit $$status

# SMALL=1 takes the smallest form.
bench-ros: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/python bench/ros.py $(if $(SMALL),--small)

bench-ros-decisions: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/python bench/ros_decisions.py $(if $(SMALL),--scenes 2)

bench-sim: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/python bench/sim.py $(if $(SMALL),--decisions 2 --steps 20)

bench-policy: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/python bench/policy.py $(if $(SMALL),--decisions 2)

bench-grasps: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/python bench/grasps.py $(if $(SMALL),--scenes 2)

bench-grasp-ceiling: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/python bench/grasp_ceiling.py $(if $(SMALL),--scenes 2,--journal $(TMPDIR)/grasp_ceiling.jsonl --append results/grasps.jsonl)

# KEEP=FOLDER leaves the networks there.
bench-encoder: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/python bench/encoder.py $(if $(KEEP),--keep $(KEEP)) $(if $(SMALL),--rounds 1 --sizes 1 --blocks 1 --rows 520)

# MINUTES=10 is the whole form.
bench-recorder: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/python bench/recorder.py $(if $(SMALL),--minutes 0.1 --episode-seconds 3,--minutes $(or $(MINUTES),10))

# Beside LeRobotDataset as well: make lerobot-env, then LEROBOT=.venv-lerobot/bin/python.
bench-episodes: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/python bench/episodes.py $(if $(LEROBOT),--lerobot-python $(LEROBOT)) $(if $(SMALL),--episodes 1 --steps 20 --seconds 0.5 --images 1 --video-frames 2)

# An environment with lerobot, which wants one of its own: 8 GB, some minutes. Its video reader needs FFmpeg's libraries.
lerobot-env: .venv-lerobot/.installed

.venv-lerobot/.installed: | interpreter
	@mkdir -p $(TMPDIR) .cache
	$(PYTHON) -m venv .venv-lerobot
	.venv-lerobot/bin/pip install -q lerobot==0.4.4
	@.venv-lerobot/bin/python -c 'import torchcodec.decoders' >/dev/null 2>&1 || { echo "torchcodec finds no FFmpeg 4 to 8: install ffmpeg (apt-get install ffmpeg), then run this again"; exit 2; }
	@touch $@

# INTERFACE=action speaks the actions of control_msgs instead of topics; RESUME=1 goes on with a run that broke off.
bench-real-arm: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/python bench/real_arm.py --interface $(or $(INTERFACE),topic) $(if $(SMALL),--tasks 2,--output runs/real-arm $(if $(RESUME),--resume))

# MINUTES=45 is the whole form.
soak: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/python bench/soak.py $(if $(SMALL),--minutes 1 --output $(TMPDIR)/soak,--minutes $(or $(MINUTES),45))

# A cell whose light and parts change at work, and a learner beside it: an hour; it goes on where it was.
lifelong: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/python bench/lifelong_cell.py

# Tasks that come one after another, by every method: hours; it goes on where it was.
lifelong-stream: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/embodied-vision learn stream run $(if $(SMALL),--small --order 0 --method product --work $(TMPDIR)/lifelong --results $(TMPDIR)/lifelong.jsonl)
	$(if $(SMALL),,$(BIN)/embodied-vision learn stream table)

bench-learning: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/python bench/learning_beside.py

bench-poisoned: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/python bench/poisoned.py $(if $(SMALL),--small)

probes: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/embodied-vision encoder probe --report runs/encoder/probe/page

bench-resets: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/python bench/resets.py $(if $(SMALL),--resets 30)

bench-oracles: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/python bench/oracles.py --json --workers 2 $(if $(SMALL),--scenes 2)

bench-guard: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/python bench/guard.py $(if $(SMALL),--commands 400)

bench-catalogue: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/python bench/catalogue.py $(if $(SMALL),--episodes 300)

bench-reading: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/python bench/reading.py $(if $(SMALL),--episodes 1 --steps 24 --seconds 0.3)

# Measures what docs/results.md lacks and makes the page. CELL='align-box-corner/*' takes those cells alone.
results: $(INSTALLED)
	@mkdir -p $(TMPDIR)
	$(BIN)/embodied-vision results run $(if $(CELL),--cell '$(CELL)'); status=$$?; $(BIN)/embodied-vision results table; exit $$status

# docs/tasks.md and its pictures, from the tasks' own definitions; docs/parameters.md, from the nodes.
docs: $(INSTALLED)
	$(BIN)/python -m embodied_vision_sim.gallery
	$(BIN)/python -m embodied_vision.nodes.describe

clean:
	rm -rf $(VENV) .venv-lerobot .tmp .cache .ros_log build dist *.egg-info demo
