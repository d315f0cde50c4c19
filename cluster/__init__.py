"""The outside world: Ray, object storage, MLflow."""
