"""What crosses machines: the boundary outputs of one partition's committed cycles, carried to another
partition, exactly once and in order into its log.

The sender's log is the queue. A `Shipper` follows it and puts each cycle's outputs; a `Receiver` takes
the one that its cursor wants, ignores older ones, and asks the sender's log for what it lacks. Its
cursor is in its own log, as an `OriginMsg`, so that it goes on where its log ends.

`wire` is what the bytes mean, `transport` what carries them: `zenoh` between machines, `fake` in tests
and simulations.
"""
