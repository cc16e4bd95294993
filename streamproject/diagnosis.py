"""What keeps an instrument silent: facts of all hops to findings, in the order a tick goes. Pure."""
