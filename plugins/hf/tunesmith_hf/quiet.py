"""Switches off what the libraries underneath would tell, fetch or run without being asked for it.

They read these variables when they are imported, so this has to come first; a variable that is set already stays.
"""

from __future__ import annotations

import os
import sys

VARIABLES = {
    "HF_HUB_DISABLE_TELEMETRY": "1",  # what is installed here, with every request; pings; a list of agents to look for
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # a request for each dataset that is loaded
    "DISABLE_SAFETENSORS_CONVERSION": "1",  # asks a service to convert a model that has pickles only
    "USE_HUB_KERNELS": "0",  # compiled code from the hub, chosen by the model's class
}


def be_quiet() -> None:
    """Set the variables; and, where the hub's library was imported before us, what it read from them."""
    said = any(name in os.environ for name in ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK"))
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None and not said:
        constants.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]
