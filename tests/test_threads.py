"""Analyses run small products with one BLAS thread, and give the threads back."""

import numpy as np
import threadpoolctl

from headscope.threads import one_blas_thread


def blas_threads():
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info()
            if pool["user_api"] == "blas"}  # fmt: skip


def test_a_function_runs_with_one_thread_and_the_others_come_back():
    np.ones((2, 2)) @ np.ones((2, 2))
    before = blas_threads()

    @one_blas_thread
    def count(extra):
        """Say how many."""
        return blas_threads(), extra

    assert count(extra=3) == ({1}, 3) or not before
    assert blas_threads() == before
    assert count.__doc__ == "Say how many."
