"""What tests are made with, and no test: task classes and graphs, pictures and films, logs built by
hand, model servers, a browser. Tests import it as `support`: `tests` is on their path."""
