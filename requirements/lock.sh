#!/bin/sh
# Pins every package of the set-up commands, with hashes and for all supported Python versions at once. Needs uv.
# The larger set is resolved first and constrains the smaller ones, so that they agree in every version.
set -eu
cd "$(dirname "$0")/.."
compile() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
        --no-emit-index-url --no-emit-find-links --no-build pyproject.toml "$@"
}
all="--extra mujoco --extra envpool --extra gymnax --extra brax --extra minari --extra atari --extra onnx --extra ray --extra sweep --extra follow --extra video"
compile $all --group test --group quality --group docs --output-file requirements/check.txt
compile $all --group test --constraint requirements/check.txt --output-file requirements/test.txt
compile --extra mujoco --extra envpool --group build --constraint requirements/check.txt --output-file requirements/train.txt
