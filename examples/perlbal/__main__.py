"""`python examples/perlbal` starts here; the program is in `program`."""

import os
import sys

if __name__ == "__main__":
    # Python has put this folder first, where `perlbal` is not found, nor `output`: both are in the folder above.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    from perlbal.program import main

    sys.exit(main())
