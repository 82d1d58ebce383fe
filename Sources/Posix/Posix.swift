// Posix: see the files beside this one.
