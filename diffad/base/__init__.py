"""What every estimator is made of: checks of arguments and names, parameters, devices, warnings, whole files."""
