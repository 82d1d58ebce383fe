// Cluster: see the files beside this one.
