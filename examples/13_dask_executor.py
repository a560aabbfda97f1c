"""Relaxations on the workers of a Dask cluster (pip install "hybridcsp[dask]"); here one on this machine.

For a real one, put in its place what knows its workers: Client("tcp://scheduler:8786"), or dask_jobqueue.SLURMCluster.
"""

import sys

from hybridcsp import Search
from hybridcsp.relaxation.backends import ExecutorBackend
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.relaxation.settings import RelaxationSettings

try:
    from dask.distributed import Client, LocalCluster
except ImportError:
    sys.exit('this script needs Dask: pip install "hybridcsp[dask]"')

WORKERS = 2


def main() -> None:
    relaxer = Relaxer(calculator="emt", settings=RelaxationSettings())
    # One thread in each process: calculators are not made for several.
    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        # Not pure: Dask would return what it remembers where a job is submitted again.
        ExecutorBackend(client.get_executor(pure=False), relaxer, capacity=WORKERS) as backend,
        Search("CuAu", formula_units=(1, 2), calculator="emt", sources=["random"], backend=backend) as search,
    ):
        search.run(relaxations=10)
        for minimum in search.minima(3):
            print(minimum.spacegroup, minimum.enthalpy_per_atom)
        print(f"{search.archive.state.relaxations} relaxations on {len(client.nthreads())} workers")


if __name__ == "__main__":  # the worker processes import this file
    main()
