// QueryServer: see the files beside this one.
