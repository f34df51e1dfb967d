"""The nodes an artist sees, one a file."""

from comfy_api.latest import ComfyExtension, io

from ..bridge.enforcement.guarded_mode import guarded_or_not_at_all, is_guarded
from ..bridge.folders import register_folders
from .apply_safety_steering import ApplySafetySteering
from .capture_activations import CaptureActivations
from .fit_safety_direction import FitSafetyDirection
from .load_safety_prompts import LoadSafetyPrompts
from .load_safety_vector import LoadSafetyVector
from .save_safety_vector import SaveSafetyVector
from .steering_report import SteeringReport


class SafetySteeringExtension(ComfyExtension):
    """Registers the model folders and the nodes."""

    async def on_load(self) -> None:
        register_folders()
        with guarded_or_not_at_all():
            if is_guarded():
                from ..bridge.enforcement.guarded_server import start_guardrail

                start_guardrail()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadSafetyVector,
            ApplySafetySteering,
            SaveSafetyVector,
            SteeringReport,
            LoadSafetyPrompts,
            CaptureActivations,
            FitSafetyDirection,
        ]
