"""Tables of other programs joined with the scans: whose row is whose."""
