"""Makes the bundled portable vector anew: SmolLM2-135M, the bundled pairs, the bundled anchors.

    .venv/bin/python tools/start.py portable_vector                # writes vectors/smollm2_135m_portable.*
    python tools/start.py portable_vector --check  # only says whether it comes out the same

Needs `pip install gguf accelerate`. About four minutes of one core. The model runs in double precision, so that neither
the batch size nor the number of threads shows in the file.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from smollm2 import smollm2_folder

REPO_ROOT = Path(__file__).resolve().parents[1]
BUNDLED = REPO_ROOT / "vectors" / "smollm2_135m_portable.safetensors"
LICENCE = "CC0-1.0 (the directions and prompts); made with SmolLM2-135M-Instruct, Apache-2.0"
OPTIONS = ("--layer", "all", "--dtype", "float64", "--licence", LICENCE)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the bundled file instead of writing it")
    check = parser.parse_args().check
    from safety_steering_pack.commands.main import main as command_line

    folder = smollm2_folder()
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / BUNDLED.name if check else BUNDLED
        code = command_line(["extract", str(folder), str(output), *OPTIONS])
        if code or not check:
            return code
        same = output.read_bytes() == BUNDLED.read_bytes()
    print("the same, bit for bit" if same else "NOT the same as the bundled file")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
