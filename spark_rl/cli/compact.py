"""spark-rl compact: fewer iterations, fewer files."""

from typing import Annotated

import typer

from spark_rl.cli.options import Json, Run, print_facts, print_json


def compact(
    run: Run,
    keep: Annotated[
        int, typer.Option("--keep-iterations", min=0, metavar="N", help="Drop all but the N newest; 0 keeps all.")
    ] = 0,
    older_than_s: Annotated[
        float, typer.Option(min=0.0, metavar="SECONDS", help="Leave alone what was committed later than this long ago.")
    ] = 600.0,
    as_json: Json = False,
) -> None:
    """Merge each iteration's small files into one, and drop iterations that are too old; no Spark is needed."""
    from spark_rl.data import compact as compaction
    from spark_rl.data.store import RunStore

    store = RunStore(run)
    store.describe()
    compaction.finish(store)
    committed = store.iterations()
    dropped: list[int] = []
    if keep and committed:
        dropped = compaction.retire(store, store.commit(committed[-1]), keep=keep, grace_s=older_than_s)
    before = after = 0
    for iteration in compaction.candidates(store, older_than_s=older_than_s):
        had, has = compaction.compact_iteration(store, iteration)
        before, after = before + had, after + has
    result = {"run": store.name, "iterations_dropped": len(dropped), "files_before": before, "files_after": after}
    if as_json:
        print_json(result)
    else:
        print_facts(result)
