"""Settings of fine-tuning, one file for each method, of the same name as the method.

They stand apart from the code that they configure so that a command can check them, and see that a
stage is done, without torch.
"""
