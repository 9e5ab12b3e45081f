"""`python -m demos.video_qa`."""

import sys

from demos.video_qa.run import main

if __name__ == "__main__":
    sys.exit(main())
