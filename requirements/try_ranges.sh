#!/bin/sh
# Installs the wheel with the oldest dependencies that pyproject.toml allows, and with the newest, each in an environment of its
# own that is thrown away, and tries it there: `try_ranges.sh PYTHON`, where PYTHON has hatchling. On Python 3.12 and 3.13 too,
# where the machine has them. What cannot be installed here, as without a connection, is left out with a line that says so.
set -eu
cd "$(dirname "$0")/.."
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$1" -m pip --quiet wheel --no-deps --no-build-isolation --no-index --wheel-dir "$place" .

# try NAME INTERPRETER PIP-OPTIONS...
try() {
    name=$1 interpreter=$2
    shift 2
    "$interpreter" -m venv "$place/venv"
    if ! "$place/venv/bin/python" -m pip --quiet --disable-pip-version-check install --only-binary :all: --retries 1 \
        "$@" "$place"/jumar-*.whl >"$place/said" 2>&1; then
        echo "$name: left out, as it cannot be installed here: $(tail -n 1 "$place/said")"
        rm -rf "$place/venv"
        return
    fi
    echo "$name: $("$place/venv/bin/python" -m pip --disable-pip-version-check list --format freeze | tr '\n' ' ')"
    (  # joined by &&, as a shell does not stop at errors in front of ||
        cd "$place" && jumar=venv/bin/jumar &&
            $jumar train a2c gymnasium/CartPole-v1 --total-timesteps 1000 --n-envs 2 --run-dir run --quiet &&
            $jumar evaluate run --episodes 2 &&
            $jumar train ppo jax/CartPole-v1 --total-timesteps 4096 --run-dir compiled --quiet &&
            $jumar report run compiled --out report.html &&
            $jumar verify --quick estimators objectives distributions
    ) >"$place/said" 2>&1 || {
        cat "$place/said"
        echo "$name: failed"
        exit 1
    }
    rm -rf "$place/venv" "$place/run" "$place/compiled" "$place/report.html"
    echo "$name: sound"
}

try "oldest dependencies" "$1" --constraint requirements/oldest.txt
try "newest dependencies" "$1"
# The name alone says little: pyenv's python3.12 refuses to run where another version is chosen, unless it is told this one.
for version in 3.12 3.13; do
    if interpreter=$(PYENV_VERSION=$version "python$version" -c "import sys; print(sys.executable)" 2>/dev/null); then
        try "Python $version, newest dependencies" "$interpreter"
    else
        echo "Python $version: left out, as this machine has none that runs"
    fi
done
