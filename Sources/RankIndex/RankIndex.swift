// RankIndex: see the files beside this one.
