"""One file a stage: LIMIT, its seconds of a run of 7.5 minutes; run(stage), which measures; summary(rows) of them."""
