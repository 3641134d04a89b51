"""The gateway: client traffic in, the tunnel to the actor's runner, the answer back."""
