"""`python examples/miniredis` starts here; the program is in `server`."""

import os
import sys

if __name__ == "__main__":
    # Python has put this folder first, where `miniredis` is not found, nor `output`: both are in the folder above.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    from miniredis.server import main

    main()
