"""DenseDepth in plain PyTorch: network, losses, metrics, protocols, readers.

Nothing here knows Ray, object storage or MLflow; every part runs in a notebook.
"""
