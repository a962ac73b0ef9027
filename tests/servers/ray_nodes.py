"""Ray with nodes of one core each on this machine. As a script it prints its address, and kills a node when told.

A line on standard input kills the node that came last at once; its end ends the cluster.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MEMORY_BYTES = 80 << 20


@contextmanager
def nodes(count: int = 2) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process of the script, and the cluster's address."""
    process = subprocess.Popen(
        [sys.executable, __file__, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    address = next(line for line in process.stdout if line.startswith("address ")).split()[1]
    try:
        yield process, address
    finally:
        process.stdin.close()
        process.wait(30)


def main() -> None:
    """Start, tell the address, and obey."""
    from ray.cluster_utils import Cluster

    few = {"num_cpus": 1, "object_store_memory": MEMORY_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={**few, "include_dashboard": False})
    added = [cluster.add_node(**few) for _ in range(1, int(sys.argv[1]))]
    cluster.wait_for_nodes()
    sys.stdout.write(f"address {cluster.address}\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        cluster.remove_node(added.pop(), allow_graceful=False)
    cluster.shutdown()


if __name__ == "__main__":
    main()
