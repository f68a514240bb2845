"""What is reported when numbers are not finite: the first meta-step, task, inner step or trajectory."""
