"""The embedded world: emoji animals drawn by code, their captions, the oracle that reads them, and the models trained on them."""
