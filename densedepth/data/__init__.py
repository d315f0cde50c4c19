"""Raw data sets, shards and the order in which they are read."""
