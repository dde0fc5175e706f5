#!/usr/bin/env bash
# Prepares this machine: system packages, the XLA libraries and the CPU plugin built on them.
#
# Everything that is fetched or built goes to a cache outside of the checkout, $SFT_CACHE or ~/.cache/sft:
#   xla/VERSION/tensorflow/      libraries and headers out of the wheel tensorflow-cpu
#   pjrt/cpu/KEY/pjrt_cpu_mpi.so the plugin, KEY being a hash of what it is made of
#   pjrt/pjrt_cpu_mpi.so         link to the current one
# A second run finds it all there and ends at once. Interrupted, it leaves nothing half-made.
set -euo pipefail

readonly wheel_version=2.21.0
readonly wheel_sha256=dcc8afd32930e42d5296b6ee19078b773706830af4ea97fbe503b9f5e0f820cb
readonly wheel_platform=manylinux_2_27_x86_64
readonly wheel_python=3.12

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${SFT_CACHE:-${XDG_CACHE_HOME:-${HOME:?set HOME or SFT_CACHE}/.cache}/sft}
plugin_source=$repository/runtime/plugin

say() { printf 'setup: %s\n' "$*"; }
fail() {
  printf 'setup: error: %s\n' "$*" >&2
  exit 1
}

check_machine() {
  [ "$(uname -s)" = Linux ] || fail "the CPU plugin is built for Linux, this is $(uname -s)"
  [ "$(uname -m)" = x86_64 ] || fail "the CPU plugin is built for x86-64, this is $(uname -m)"
}

# --- System packages

has() { command -v "$1" >/dev/null 2>&1; }

# The bindings to MPI are generated at build time with libclang (libclang-cpp is another library).
has_libclang() {
  local library
  for library in /usr/lib/llvm-*/lib/libclang{.so,-[0-9]*.so}* /usr/lib/x86_64-linux-gnu/libclang{.so,-[0-9]*.so}* ${LIBCLANG_PATH:+"$LIBCLANG_PATH"/libclang.so*}; do
    if [ -e "$library" ]; then return 0; fi
  done
  return 1
}

missing_packages() {
  has mpirun || echo openmpi-bin
  { has mpicc && has mpicxx; } || echo libopenmpi-dev
  has_libclang || echo libclang-dev
  has g++ || echo g++
  has make || echo make
  if ! has python3; then
    echo python3 python3-pip
  elif ! python3 -m pip --version >/dev/null 2>&1; then
    echo python3-pip
  fi
}

install_packages() {
  local packages
  read -ra packages <<<"$(missing_packages | tr '\n' ' ')"
  [ ${#packages[@]} -gt 0 ] || return 0
  has apt-get || fail "missing: ${packages[*]}; install them (these are Debian's names), then run this again"
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    has sudo || fail "missing: ${packages[*]}; install them as root, then run this again"
    as_root=(sudo)
  fi
  say "installing ${packages[*]}"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
}

# --- XLA

xla=$cache/xla/$wheel_version
wheel=$xla/tensorflow

fetch_xla() {
  [ ! -e "$xla" ] || return 0
  mkdir -p "$cache/xla"
  local work
  work=$(mktemp -d "$cache/xla/.partial.XXXXXX")
  # shellcheck disable=SC2064  # The path of now is meant.
  trap "rm -rf '$work'" EXIT
  say "downloading XLA (wheel tensorflow-cpu $wheel_version, 274 MB)"
  echo "tensorflow-cpu==$wheel_version --hash=sha256:$wheel_sha256" >"$work/requirements.txt"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
    --platform "$wheel_platform" --python-version "$wheel_python" --dest "$work" -r "$work/requirements.txt" ||
    fail "pip could not download tensorflow-cpu $wheel_version; see its message above"
  say "unpacking its libraries and headers (1.1 GB)"
  python3 - "$work" <<'PYTHON'
import glob, sys, zipfile

work = sys.argv[1]
wanted = ("tensorflow/libtensorflow_cc.so.2", "tensorflow/libtensorflow_framework.so.2", "tensorflow/include/")
with zipfile.ZipFile(glob.glob(work + "/*.whl")[0]) as wheel:
    wheel.extractall(work + "/tree", [name for name in wheel.namelist() if name.startswith(wanted)])
PYTHON
  mv -T "$work/tree" "$xla" 2>/dev/null || [ -e "$xla" ] || fail "cannot write $xla"
  rm -rf "$work"
  trap - EXIT
}

# --- The plugin

plugin_key() {
  {
    echo "$wheel_version $wheel_sha256 $wheel"
    mpicxx --showme:compile
    mpicc --showme:link
    g++ -dumpfullversion
    cd "$plugin_source"
    sha256sum build.sh ./*.cc ./*.h stub/mlir/IR/*.h
  } | sha256sum | cut -c1-16
}

build_plugin() {
  local key plugin
  key=$(plugin_key)
  plugin=$cache/pjrt/cpu/$key/pjrt_cpu_mpi.so
  if [ ! -e "$plugin" ]; then
    say "building the CPU plugin (a few minutes, once)"
    "$plugin_source/build.sh" "$wheel" "$plugin"
  fi
  if [ "$(readlink "$cache/pjrt/pjrt_cpu_mpi.so" 2>/dev/null)" != "cpu/$key/pjrt_cpu_mpi.so" ]; then
    ln -sfn "cpu/$key/pjrt_cpu_mpi.so" "$cache/pjrt/.link.$$"
    mv -T "$cache/pjrt/.link.$$" "$cache/pjrt/pjrt_cpu_mpi.so"
  fi
  say "ready: $cache/pjrt/pjrt_cpu_mpi.so"
}

check_machine
install_packages
fetch_xla
build_plugin
