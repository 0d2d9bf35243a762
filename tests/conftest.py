"""Settings for all tests: no network, no telemetry, no more threads than a small machine has cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
