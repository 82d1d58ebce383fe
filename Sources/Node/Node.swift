// Node: see the files beside this one.
