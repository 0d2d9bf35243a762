"""Names of the files of a saved reward model."""

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "head.safetensors"
BACKBONE_FILE = "backbone.safetensors"
"""File of the trained weights of the backbone, where `tune_last` trained any."""
TYPES = "types"
"""Folder of the rater types, where the settings ask for some."""
TYPES_FILE = "types.json"
