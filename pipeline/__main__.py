"""``python -m pipeline VERB``. PYTHON_ARGCOMPLETE_OK."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main())
