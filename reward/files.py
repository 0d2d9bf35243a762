"""Names of the files of a saved reward model."""

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "head.safetensors"
TYPES = "types"
"""Folder of the rater types, if the settings ask for them."""
TYPES_FILE = "types.json"
MAPS_FILE = "maps.safetensors"
"""Weights of the predictor of maps, which rewards from labels with marks have."""
