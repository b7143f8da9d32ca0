"""Trainings: a LoRA from the photos of a published repo, made by a Hugging Face Job."""
