// RankMySteps: see the files beside this one.
