"""The shared vocabulary: schemas, the feedback store, Parquet and run folders.

Nothing here imports torch or gradio.
"""
