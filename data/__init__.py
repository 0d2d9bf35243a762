"""The shared vocabulary: schemas, the feedback store, Parquet and run folders. Imports neither torch nor gradio."""
