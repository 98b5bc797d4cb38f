"""The way of data into the engine: what the user gave, checked, read ahead and cut into batches."""
