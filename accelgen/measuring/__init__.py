"""What is measured: methods beside their baselines, the costs of calls, recorded runs."""
