#!/usr/bin/env bash
# What `make demo` shows: the commands as one would type them, and what they print.
#     demo.sh FOLDER      FOLDER has the commands senetzoo and python
set -euo pipefail
bin=$(cd "$1" && pwd)
photos=$("$bin/python" -c 'import pathlib, skimage; print(pathlib.Path(skimage.__file__).parent / "data")')
cd "$photos"
PATH="$bin:$PATH"
run() {
  echo "\$ $*"
  "$@"
  echo
}
echo "Photographs from scikit-image, enlarged or reduced to what the network was trained on:"
run senetzoo predict --top 3 chelsea.png rocket.jpg coffee.png
echo "A LeNet-5 on the handwritten digits that were held out of its training:"
run senetzoo eval lenet5 digits
echo "What SE costs: both networks in turn, batch by batch:"
run senetzoo bench --model resnet20 --model se_resnet20 --batch 64 --rounds 15
