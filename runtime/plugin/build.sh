#!/usr/bin/env bash
# Builds the CPU plugin: build.sh WHEEL OUT.so
#
# WHEEL is the unzipped `tensorflow/` folder of the wheel tensorflow-cpu. It must stay where it is: the plugin finds
# XLA's libraries there. Takes a few minutes; at most two compilers run at a time, each needs 1.5 GB.
set -euo pipefail

if [ $# -ne 2 ]; then
  echo "usage: build.sh WHEEL OUT.so" >&2
  exit 2
fi
wheel=$(cd "$1" && pwd)
mkdir -p "$(dirname "$2")"
out=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
cd "$(dirname "${BASH_SOURCE[0]}")"

# The slow ones first, so that both compilers are busy until the end.
units=(client executable buffer mpi_collectives reduction mpi_engine api)

include=$wheel/include
read -ra mpi_compile <<<"$(mpicxx --showme:compile)"
read -ra mpi_link <<<"$(mpicc --showme:link)"
compile=(g++ -std=c++17 -O2 -DNDEBUG -D_GLIBCXX_USE_CXX11_ABI=1 -DOMPI_SKIP_MPICXX -Wall
  -fPIC -fvisibility=hidden -fvisibility-inlines-hidden
  -isystem stub -isystem "$include" -isystem "$include/third_party"
  -isystem "$include/external/com_google_protobuf" -isystem "$include/external/ml_dtypes_py"
  -isystem "$include/external/highwayhash" -isystem "$include/external/farmhash_archive/src" "${mpi_compile[@]}")
link=(-L"$wheel" -l:libtensorflow_cc.so.2 -l:libtensorflow_framework.so.2
  -Wl,-rpath,"$wheel" -Wl,-rpath-link,"$wheel" "${mpi_link[@]}" -Wl,-z,defs)

objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
# stdin would be inherited by the compilers; `wait -n` reports the first failure.
running=0
for unit in "${units[@]}"; do
  if [ "$running" -ge 2 ]; then
    wait -n
    running=$((running - 1))
  fi
  echo "  compiling $unit.cc"
  "${compile[@]}" -c "$unit.cc" -o "$objects/$unit.o" </dev/null &
  running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
  wait -n
  running=$((running - 1))
done
echo "  linking"
g++ -shared "$objects"/*.o -o "$out.partial" "${link[@]}"
mv "$out.partial" "$out"
