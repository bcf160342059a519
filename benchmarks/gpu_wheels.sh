#!/usr/bin/env bash
# Download into .wheels/ what vidlat needs on a GPU machine that has PyTorch but no package index (docs/how-to/gpu.md):
#
#     benchmarks/gpu_wheels.sh [FOLDER]
#
# Wheels for Python 3.12 on x86-64 Linux, in the versions of constraints.txt, 64 MiB at most in all.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-.wheels}
most_bytes=$((64 << 20))
# The second line is what the packages of the first need besides PyTorch's and TensorBoard's own needs.
packages=(monai av dask distributed pydicom nibabel numcodecs google-crc32c rich
	locket partd tblib tornado zict)
platforms=()
for glibc in 39 35 34 31 28 27 24 17; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
for name in manylinux2014 manylinux2010 manylinux1; do platforms+=(--platform "${name}_x86_64"); done

pinned=()
for package in "${packages[@]}"; do
	pinned+=("$(grep -i "^${package}==" constraints.txt)") || { echo "$package: not in constraints.txt"; exit 1; }
done
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
python3 -m pip download --quiet --no-deps --only-binary=:all: --implementation cp --python-version 3.12 \
	"${platforms[@]}" --dest "$fresh" "${pinned[@]}"
mkdir -p "$folder"
rm -f "$folder"/*.whl # of another time; nothing else that is there
mv "$fresh"/*.whl "$folder"

ls -l "$folder"/*.whl | awk '{ printf "%6.2f MB  %s\n", $5 / 1e6, $NF }'
bytes=$(cat "$folder"/*.whl | wc -c)
echo "$((bytes / 1000000)) MB in ${#pinned[@]} wheels"
[ "$bytes" -le "$most_bytes" ] || { echo "more than the $((most_bytes >> 20)) MiB that can be carried"; exit 1; }
