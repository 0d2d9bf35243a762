"""The stage `finetune`: its plan, which imports no torch, and its work."""
