"""Names of the files of a saved reward model."""

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "head.safetensors"
BACKBONE_FILE = "backbone.safetensors"
"""File with the backbone's trained weights, if `tune_last` trained any."""
TYPES = "types"
"""Folder of the rater types, if the settings ask for them."""
TYPES_FILE = "types.json"
