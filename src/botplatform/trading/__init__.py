"""The pure domain of trading: orders, positions, instruments, risk and reasons; used by several engines.

Nothing here does I/O, asks for the time or makes up an id: everything is a function of events.
"""
