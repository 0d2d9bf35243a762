"""Settings of fine-tuning, one file for each method, of the same name as the method.

The settings are separate from the code that they configure. So a command can check them, and
whether a stage is done, without importing torch.
"""
