# `make demo` and `make test` need nothing but what `make help` lists: they build the environment first.
PYTHON ?= python3
# The one outside of the environment, which is made anew by it
override PYTHON := $(or $(shell command -v $(PYTHON)),$(PYTHON))
# Of the wheels: kilted or jazzy, each in an environment of its own
DISTRO ?= kilted
VENV := .venv$(if $(filter-out kilted,$(DISTRO)),-$(DISTRO))
ROS_REQUIREMENTS := requirements-ros$(if $(filter-out kilted,$(DISTRO)),-$(DISTRO)).txt
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Where a ROS installation is sourced, it is used; elsewhere ROS 2 comes as Python wheels into the environment.
ROS ?= $(if $(ROS_DISTRO),installed,wheels)
# vision_msgs of that installation, if it has the package
VISION_MSGS := $(firstword $(wildcard $(addsuffix /share/vision_msgs/package.xml,$(subst :, ,$(AMENT_PREFIX_PATH)))))

BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)
export AMENT_PREFIX_PATH := $(CURDIR)/$(VENV)$(addprefix :,$(AMENT_PREFIX_PATH))
export CMAKE_PREFIX_PATH := $(AMENT_PREFIX_PATH)
unexport PYTHONHOME VIRTUAL_ENV
# A Python of the ROS wheels marks its children as set up, together with its library path: ours is another Python.
ifdef _ROS_WHEELS_BOOTSTRAP_COMPLETE
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH
endif

# A step is done when its stamp exists; the stamp's name is made from what the step is built from.
STAMPS := $(VENV)/.stamps
hash = $(shell cat $(1) 2>/dev/null | sha256sum | cut -c1-16)
VENV_KEY := $(shell { $(PYTHON) -VV; echo $(CURDIR) $(ROS); } 2>&1 | sha256sum | cut -c1-16)
VENV_STAMP := $(STAMPS)/venv-$(VENV_KEY)
DEPENDENCIES_STAMP := $(STAMPS)/dependencies-$(call hash,pyproject.toml scripts/requirements.py $(ROS_REQUIREMENTS) constraints.txt)
VISION_FILES := $(sort $(wildcard third_party/vision_msgs/* third_party/vision_msgs/msg/* cmake/*))
VISION_STAMP := $(STAMPS)/vision_msgs-$(call hash,$(VISION_FILES) $(ROS_REQUIREMENTS))
PACKAGE_FILES := CMakeLists.txt package.xml pyproject.toml setup.py cract_core/__init__.py cract_ros/__init__.py \
    $(sort $(wildcard msg/*/* launch/* config/* scripts/* cmake/*)) $(VISION_FILES)
PACKAGE_STAMP := $(STAMPS)/package-$(call hash,$(PACKAGE_FILES) $(ROS_REQUIREMENTS))

# $(call done,step): mark the step as done, and only in its present form
done = rm -f $(STAMPS)/$(1)-* && touch $@

.PHONY: help env lint test test-all test-jazzy demo weights clean

help:
	@cat <<-'END'
	make demo    track a target through the ROS 2 node on a rendered aerial scene; writes demo/out.mp4
	             CLIP=<video or image folder> BOX=x,y,w,h plays your own
	make lint    ruff, mypy and the directions of imports
	make test    run these and the tests; PYTEST_ARGS='-m "not slow" -k crop' chooses
	make test-all also runs those that take long
	make weights train the networks on a CPU, in two legs (two and a half hours of one core); writes runs/weights/cract.pt
	             DATA=<folder of training shards>, IMAGENET=<ResNet-18 weights, else downloaded>
	make env     build the environment in .venv (those above do it when needed)
	make clean   remove the environment and all build results

	Needed beforehand: Linux, python3 (3.10 or later) with its venv module and headers, a C and C++ compiler, make.
	  apt-get install python3-venv python3-dev gcc g++ make
	A sourced ROS 2 installation is used; elsewhere ROS 2 is installed as Python wheels into .venv.
	PYTHON=python3.12 chooses another Python, DISTRO=jazzy the wheels of Jazzy instead of Kilted.
	make test-jazzy starts, uses, ends and restarts the node with the wheels of Jazzy
	END

env: $(PACKAGE_STAMP)

$(VENV_STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo 'error: $(PYTHON) is older than Python 3.10: choose another one with PYTHON=...' >&2; exit 1; }
	for tool in cc c++; do
	    command -v $$tool >/dev/null || \
	        { echo "error: no $$tool was found: install a C and C++ compiler (apt-get install gcc g++)." >&2; exit 1; }
	done
	$(PYTHON) -c 'import os, sysconfig as s, sys; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))' || \
	    { echo 'error: Python.h of $(PYTHON) was not found: install the headers (apt-get install python3-dev).' >&2; exit 1; }
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo 'error: $(PYTHON) has no venv module: install it (apt-get install python3-venv).' >&2; exit 1; }
	echo 'Creating $(VENV)'
	rm -rf $(VENV) build/vision_msgs-$(DISTRO)
	$(PYTHON) -m venv $(if $(filter installed,$(ROS)),--system-site-packages) $(VENV)
	mkdir -p $(STAMPS)
	$(call done,venv)

$(DEPENDENCIES_STAMP): $(VENV_STAMP)
	@echo 'Installing the dependencies'
	$(BIN)/python scripts/requirements.py ray >$(STAMPS)/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	    --requirement $(STAMPS)/requirements.txt \
	    $(if $(filter wheels,$(ROS)),--requirement $(ROS_REQUIREMENTS))
	$(call done,dependencies)

$(VISION_STAMP): $(DEPENDENCIES_STAMP)
ifeq ($(VISION_MSGS),)
	@echo 'Building vision_msgs'
	mkdir -p build
	{
	    cmake -S third_party/vision_msgs -B build/vision_msgs-$(DISTRO) -G Ninja -DCMAKE_BUILD_TYPE=Release \
	        -DCMAKE_INSTALL_PREFIX=$(CURDIR)/$(VENV) -DPython3_EXECUTABLE=$(BIN)/python
	    cmake --build build/vision_msgs-$(DISTRO) --target install
	} >build/vision_msgs.log 2>&1 || { tail -40 build/vision_msgs.log >&2; exit 1; }
else
	@echo 'Using vision_msgs of $(VISION_MSGS)'
endif
	$(call done,vision_msgs)

$(PACKAGE_STAMP): $(VISION_STAMP)
	@echo 'Building cract_ros'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(call done,package)

lint: $(DEPENDENCIES_STAMP)
	@$(BIN)/ruff check --quiet --no-cache .
	$(BIN)/mypy --no-error-summary --cache-dir /dev/null
	found=$$($(BIN)/lint-imports --no-cache) || { echo "$$found" >&2; exit 1; }

test: env lint
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

test-all:
	@CRACT_LONG=1 $(MAKE) --no-print-directory test

# What differs between the distributions is the node's process: the rest is tested once.
test-jazzy:
	@$(MAKE) --no-print-directory env DISTRO=jazzy
	$(MAKE) --no-print-directory test DISTRO=jazzy \
	    PYTEST_ARGS='-p no:cacheprovider test/test_node_process.py test/test_transitions.py test/test_transport.py test/test_distro.py'

demo: env
	@$(BIN)/python -m cract_ros.demo $(if $(CLIP),--clip '$(CLIP)') $(if $(BOX),--box '$(BOX)')

weights: env
	@test -n '$(DATA)' || { echo 'error: say where the training shards are: make weights DATA=<folder>' >&2; exit 1; }
	leg() {
	    $(BIN)/cract train config/$$2 --data '$(DATA)' --output runs/leg$$1 --seed $$1 "$${@:3}" $(TRAIN_ARGS)
	}
	leg 1 train_cpu.yaml $(if $(IMAGENET),--imagenet '$(IMAGENET)')
	leg 2 train_motion.yaml --start-from runs/leg1/cract.pt
	$(BIN)/cract export runs/weights --precision int8 --data '$(DATA)' --weights runs/leg2/cract.pt

clean:
	rm -rf .venv .venv-jazzy build install log dist *.egg-info
