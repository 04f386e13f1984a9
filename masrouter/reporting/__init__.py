"""What people read: self-contained HTML pages with figures, from results that are plain data.

Not here: any number that the results do not hold already (`masrouter.evaluation`).
"""
