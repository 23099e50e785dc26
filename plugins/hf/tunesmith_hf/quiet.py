"""Switch off what the Hugging Face libraries report, download or run without being asked to.

They read these variables when they are imported, so the variables are set in the first hook of a run, `validate`. A
variable that is already set keeps its value. Importing the plugin changes nothing.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings

VARIABLES = {
    "HF_HUB_DISABLE_TELEMETRY": "1",  # no list of installed packages with each request, no pings, no search for agents
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # no request for each dataset that is loaded
    "DISABLE_SAFETENSORS_CONVERSION": "1",  # no request to convert a model that has pickles only
    "TRANSFORMERS_VERBOSITY": "error",  # warnings are about config.json, which is checked here with its place
    "USE_HUB_KERNELS": "0",  # no compiled code from the hub, chosen by the model's class
}
PROBED = ("bitsandbytes", "deepspeed", "torchao")
"""Libraries that transformers, peft and accelerate import whenever they are installed, which takes seconds."""
LIBRARIES = ("transformers", "peft", "accelerate", "huggingface_hub", "datasets")
"""Libraries whose FutureWarning is about their own code: names that one of them uses and another one deprecates."""


def be_quiet() -> None:
    """Set the variables and hide warnings of the libraries about themselves.

    If huggingface_hub is already imported, also change the value that it read from the variables.
    """
    explicit = any(name in os.environ for name in ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK"))
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning, module=f"({'|'.join(LIBRARIES)})(\\.|$)")
    # peft imports bitsandbytes if it is installed. On some CPUs, it then warns about a kernel of the hub.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None and not explicit:
        constants.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]
