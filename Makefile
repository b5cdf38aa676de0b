# For a machine without ROS: everything comes from PyPI, into .venv. (With ROS: colcon, see README.md.)
#
#   make demo                    a stream of images through the node, over DDS; a bag and pictures come out
#   make demo SOURCE=video.mp4   the same with an image, a folder, a video, or the number of a webcam
#   make test                    style, types, tests
#   make lint                    style and types alone
#   make venv                    the environment alone
#   make clean                   remove the environment and all caches
#
# PYTHON=python3.11 chooses the interpreter (3.10, 3.11 or 3.12).

PYTHON ?= python3
export SOURCE ?=

BIN := .venv/bin

# What the compiled half of the package, and its dependencies, are made from.
INSTALL_INPUTS := constraints.txt pyproject.toml setup.py package.xml CMakeLists.txt \
  $(shell find cmake config interfaces launch msg rviz scripts -type f)

# All versions are pinned, in the isolated build environment too (newer pips want it said apart).
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# A sourced ROS installation or another virtual environment with ROS wheels must not leak in.
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH PYTHONHOME PYTHONPATH
unexport RMW_IMPLEMENTATION ROS_DISTRO _ROS_WHEELS_BOOTSTRAP_COMPLETE HAND_MESH_ROS_NO_INTERFACES

.PHONY: demo test lint venv clean

demo: .venv/installed
	$(BIN)/hand-mesh demo $${SOURCE:+"$$SOURCE"}

test: lint
	$(BIN)/python -m pytest

lint: .venv/installed-tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

venv: .venv/installed-tests

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build *.egg-info
	find hand_mesh_ros launch test -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@command -v $(PYTHON) > /dev/null || { echo "no $(PYTHON): make PYTHON=<a Python 3.10, 3.11 or 3.12>"; exit 1; }
	@$(PYTHON) scripts/check_machine.py
	$(PYTHON) -m venv .venv

.venv/installed: $(INSTALL_INPUTS) | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[ros]'
	touch $@

# The package is there, so that pip only adds what the extra asks for and compiles nothing again.
.venv/installed-tests: .venv/installed
	$(BIN)/python -m pip install --quiet 'hand-mesh-ros[test]'
	touch $@
