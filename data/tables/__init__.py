"""The Parquet tables of a run: their export, their check and their copies."""
