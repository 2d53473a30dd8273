"""Whether an experiment is what was written: manifests checked, numbers computed again."""
