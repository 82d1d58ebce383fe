// Bytes: see the files beside this one.
