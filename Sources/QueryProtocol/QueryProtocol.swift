// QueryProtocol: see the files beside this one.
