"""The nodes, one a file: those of an artist here, those of a researcher in `research`."""

from comfy_api.latest import ComfyExtension, io

from ..bridge.browser import add_browser_routes, show_any
from ..bridge.folders import register_folders
from ..bridge.guarded_mode import guarded_or_not_at_all, is_guarded
from ..bridge.steering.lost import tell_lost
from ..bridge.steering.running import watch_prompts
from .apply_safety_steering import ApplySafetySteering
from .category_mixer import CategoryMixer
from .fit_benign_alignment import FitBenignAlignment
from .load_safety_alignment import LoadSafetyAlignment
from .load_safety_vector import LoadSafetyVector
from .research.calibrate_steering import CalibrateSteering
from .research.capture_activations import CaptureActivations
from .research.evaluate_safety import EvaluateSafety
from .research.extract_llm_direction import ExtractLlmDirection
from .research.fit_safety_direction import FitSafetyDirection
from .research.load_safety_prompts import LoadSafetyPrompts
from .research.load_source_llm import LoadSourceLlm
from .research.safety_judge import SafetyJudge
from .safe_model import SafeModel
from .safety_ab import SafetyAB
from .save_safety_alignment import SaveSafetyAlignment
from .save_safety_vector import SaveSafetyVector
from .steering_report import SteeringReport
from .strength_grid import StrengthGrid
from .transfer_direction import TransferDirection


class SafetySteeringExtension(ComfyExtension):
    """Registers the model folders and the nodes."""

    async def on_load(self) -> None:
        register_folders()
        watch_prompts(tell_lost)
        with guarded_or_not_at_all():
            may_show = show_any
            if is_guarded():
                from ..bridge.enforcement.start import start_guardrail

                may_show = start_guardrail().may_show
            add_browser_routes(may_show)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            SafeModel,
            LoadSafetyVector,
            FitBenignAlignment,
            TransferDirection,
            CategoryMixer,
            ApplySafetySteering,
            SaveSafetyVector,
            SaveSafetyAlignment,
            LoadSafetyAlignment,
            SteeringReport,
            SafetyAB,
            StrengthGrid,
            LoadSafetyPrompts,
            CaptureActivations,
            FitSafetyDirection,
            LoadSourceLlm,
            ExtractLlmDirection,
            SafetyJudge,
            EvaluateSafety,
            CalibrateSteering,
        ]
