"""The experiments of the papers on fine-tuning, as far as two cores and an offline corpus go."""
