"""Where runs train: in this process, in several of this machine, or on a cluster of Ray.

An engine takes a function with its arguments (`submit`) and says when it has ended (a `Future`).
`task` is what is submitted, a run; `grid` submits them all and hears how they end; `claims` keep
two processes from training the same run, whatever started them. Between processes and machines
there is the run directory alone.
"""
