#!/bin/sh
# Installs the SDKs that tests/it/sdk.rs runs: node packages into node_modules, Python ones into
# venv, both beside this file. Without them those tests say that they are skipped.
set -eu
cd "$(dirname "$0")"
npm install --no-audit --no-fund --ignore-scripts
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
