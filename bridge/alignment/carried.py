"""A portable vector carried over and sharpened, or the one in the cache: at 4 096 channels it takes seconds to make."""

from __future__ import annotations

import hashlib
import json
import logging

from ...safety_steering.alignment.alignment import Alignment
from ...safety_steering.alignment.transfer import carry_over
from ...safety_steering.vectors.file import load_vector, save_vector
from ...safety_steering.vectors.vector import SafetyVector
from ..cache import carried_paths, read_first, write_first

CONTENT_VERSION = 2  # raised when the same vector and alignment would be carried over to another result


def carried(vector: SafetyVector, alignment: Alignment, shrinkage: float) -> SafetyVector:
    """`carry_over`, made once for each vector, mix, alignment and shrinkage.

    Raises:
        SafetySteeringError: as of `carry_over`.
    """
    content = [CONTENT_VERSION, vector.sha256, dict(vector.mix), alignment.sha256, shrinkage]
    paths = carried_paths(hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32])
    if (found := read_first(paths, load_vector)) is not None:
        return found.with_mix(vector.mix)
    made = carry_over(vector, alignment, shrinkage)
    try:
        write_first(paths, lambda path: save_vector(made, path))
    except OSError as error:
        logging.warning("Safety Steering: the carried vector cannot be kept and is made again next time: %s.", error)
    return made
