"""The nodes an artist sees, one a file."""

from comfy_api.latest import ComfyExtension, io

from ..bridge.folders import register_folders
from .apply_safety_steering import ApplySafetySteering
from .load_safety_vector import LoadSafetyVector
from .save_safety_vector import SaveSafetyVector
from .steering_report import SteeringReport


class SafetySteeringExtension(ComfyExtension):
    """Registers the model folders and the nodes."""

    async def on_load(self) -> None:
        register_folders()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [LoadSafetyVector, ApplySafetySteering, SaveSafetyVector, SteeringReport]
