"""``python -m pipeline shards ...``."""

import sys

from pipeline import shards

if __name__ == "__main__":
    if sys.argv[1:2] != ["shards"]:
        sys.stderr.write("python -m pipeline shards info|verify|repair|preview|export\n")
        sys.exit(2)
    sys.exit(shards.main(sys.argv[2:]))
