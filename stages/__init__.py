"""One file per node of the DAG."""
