"""The main job, shown: one FalconFineTune from data to a served, fine-tuned Falcon. `make demo` runs it."""
