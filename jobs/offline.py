"""spark-submit entry of `spark-rl offline`: the submitted master and settings count. Exit codes as there."""

import sys

from spark_rl.cli import main

if __name__ == "__main__":
    sys.exit(main(["offline", *sys.argv[1:]]))
