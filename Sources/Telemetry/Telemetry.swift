// Telemetry: see the files beside this one.
