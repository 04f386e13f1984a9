"""What would a router get and pay? Offline from logs, and live on problems.

crossval, summary, report   learners and baselines on grid logs, held out: the table and its metrics
off_policy                  what a policy would earn, estimated from randomised logs
replay                      one router on logged traffic of any kind
live                        the routed team against fixed plans, run now on the same problems
cold_start, teams, split_runs   new models, teams beside single agents, choosing on half the runs
exports                     the same in the formats of routing benchmarks

Not here: training, how pages look (`masrouter.reporting`).
"""
