"""spark-submit entry of `spark-rl train`: the submitted master and settings count. Exit codes as there."""

import sys

from spark_rl.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
