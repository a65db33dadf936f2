"""Many models, one budget: the plan, the runs, the statistics, the findings and the report."""
