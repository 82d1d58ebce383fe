// Transport: see the files beside this one.
