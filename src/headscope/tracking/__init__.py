"""An experiment in other tools, from its record: a notebook, MLflow, TensorBoard."""
