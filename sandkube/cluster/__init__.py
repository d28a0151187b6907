"""Running clusters: one sandbox each, watched over by one supervisor process.

On disk, below `outputs/clusters/NAME/` (mode 0700):

    state.json    what the supervisor is and how far it is; replaced by rename, written by the supervisor alone
    kubeconfig    the administrator's, with the forwarded port; there from the stage `apiserver` on
    settings.json what the cluster was started with, and where that is from (`configured`)
    logs/X.log    the log of component X; X.log.1 is its older half
    runsc/        runsc's own state
    cgroups.json  of the kind linux: its cgroups; first.pid has its first process
    kubectl-cache/  what kubectl keeps between calls
    supervisor.log  empty, unless the supervisor has a bug

Removing state.json, or all of it, ends the cluster.

`outputs/clusters/.NAME.lock` is held (flock) by whoever starts or stops the cluster.
"""
